from hypothesis import settings

# A busy machine is no reason to fail: nothing here asserts how long it takes.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
