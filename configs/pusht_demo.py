"""What `make demo` trains: Push-T from the demonstrations in the repository.

python -m dpjax.train --config pusht_demo --workdir runs/demo
"""

from dpjax.config import recipes


def get_config():
    """The small U-Net on short, successful episodes, for about ten minutes."""
    config = recipes.load("pusht_state_small")
    config.data.dir = recipes.demonstrations("pusht")
    config.train.steps = 2_500
    config.optim.warmup = 200
    # Predicting x_0 takes fewer steps to learn than predicting the noise: at high noise levels
    # an error of ε̂ is multiplied by σ/α (also found by Ze et al. 2024).
    config.predict = "sample"
    config.eval.every = 0
    config.sampler.name = "ddim"
    config.sampler.num_steps = 10
    return config
