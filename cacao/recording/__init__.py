"""Sessions of a development server, written down as they happen, and played again.

How it works. A trio run under a real clock cannot be repeated: its timers fire a little late, and
which changes gather into one message is a matter of milliseconds. So a server that records lets the
app live in a run that only its owner moves, as tests do (`sealed.py`). Whatever comes from outside
(a text of a client's, the end of work in a thread, a deadline that is due) goes in at an exact
virtual moment, and that is written down (`tape.py`), with what came out. The same inputs at the
same moments then give the same frames.

- `door`: where work in threads waits until it is let back in.
- `sealed`: an app in a run that nothing but its inputs moves.
- `names`, `secrets`, `disguise`: what must not get into a file, and what stands there.
- `tape`: the file.
- `recorder`: the server's side of a sealed run.
- `replay`: the same run fed from a file, and the first difference.
- `script`, `as_test`: a file as a test would tell it, and as one that pytest runs.
"""
