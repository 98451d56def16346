"""The paper's equations: schedules, parameterizations, samplers."""
