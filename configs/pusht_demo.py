"""What `make demo` trains: Push-T from the demonstrations in the repository.

python -m dpjax.train --config pusht_demo --workdir runs/demo
"""

from dpjax.config import recipes


def get_config():
    """The small U-Net on short, successful episodes; it trains in about ten minutes."""
    config = recipes.load("pusht_state_small")
    config.data.dir = recipes.demonstrations("pusht")
    config.train.steps = 2_500
    config.optim.warmup = 200
    # Predicting x_0 is learned in fewer steps than predicting the noise ε (also Ze et al. 2024):
    # x̂_0 = (x - σ ε̂) / α multiplies an error of ε̂ by σ/α, which is large at high noise levels.
    config.predict = "sample"
    config.eval.every = 0  # `make demo` evaluates after the training
    config.sampler.name = "ddim"
    config.sampler.num_steps = 10
    return config
