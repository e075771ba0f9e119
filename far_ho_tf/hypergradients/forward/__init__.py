"""Forward mode: tangents of the state, propagated along the run."""
