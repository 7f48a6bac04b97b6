"""A viewer: a small server of run directories and its page. It reads runs and writes nothing.

    files           what may be read: regular files inside the given folders, up to a size
    runs_index      which runs are there, and the record of each in the list
    metrics_tail    metrics of a run, read on from where the last reading ended
    run_page        one run: arguments, panels, pictures, tables
    samples_index   responses by reward, length, text, …: an index that is made while one looks
    samples_lines   lines of a samples file, and the responses on a line
    sample_page     one response by its tokens, its group, its prompt over the steps
    token_pieces    the text of each token
    mathematics     the objective of a run as MathML, in a process of its own
    server          HTTP; static_page: the same as files

Left out: the page itself (`page/`), and what runs are compared by (`runs/comparison.py`).
"""
