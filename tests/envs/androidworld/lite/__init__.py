"""A stand-in for upstream's package where that is not installed, as in CI.

Our guest server is the real one; below it are modules of upstream's names with what the guest calls, over the same stand-in phone,
and ten tasks that behave like upstream's of the same name: scored from the phone's state, torn down, one that cannot be initialised,
one that rewords its own parameters, one with the time of its making in its goal.  The other 106 have a goal and score 0.  Beside it
a server with upstream's thirteen routes; the recorded transcript of upstream's own says whether it answers as that does.

With AGENTLAB_ANDROID_PYTHON the same tests run over upstream's package and servers instead.
"""
