"""Numbers that break things, and the shapes of batches."""

from hypothesis import strategies as st

seeds = st.integers(0, 2**16)
decays = st.sampled_from([0.0, 1.0, 0.5, 0.9, 0.99]) | st.floats(0, 1).map(lambda x: round(x, 4))
flags = st.booleans()
sizes = st.integers(1, 4)
batches = st.sampled_from([(), (1,), (2,), (3,), (2, 3), (1, 2)])
rates = st.sampled_from([0.0, 0.3, 0.7, 1.0])
