from hypothesis import settings

# the first call of a function pays for imports and allocations: no deadline for one example
settings.register_profile("default", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("default")
