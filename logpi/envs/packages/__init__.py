"""Environments of other ecosystems, each as an ordinary task: `--task verifiers:NAME`, `--task
openenv:URL`.

    verifiers.py          verifiers' tasksets and environments, the Environments Hub among them
    verifiers_episode.py  one of its episodes, played from another thread
    plugin_verifiers.py   what verifiers runs in its own event loop
    openenv.py            OpenEnv's servers and environment classes
    openenv_sessions.py   an episode of one: over its WebSocket, or in this process
    verdicts.py           their numbers as rewards
    importing.py          modules by name or by path
    words.py              what a turn says: its thought, its calls, the rest

logpi's engine writes the turns and keeps their tokens; the environment answers and judges. It is
other people's code, which runs because the user installed it and named it. Left out: installing
one, and sandboxes for it.
"""
