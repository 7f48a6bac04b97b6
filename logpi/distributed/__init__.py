"""Several processes: who they are, how work is dealt to them, and weights in shards."""
