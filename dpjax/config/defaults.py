"""Every key of dpjax, with unit and source. Task files change what is theirs.

Sizes that follow from the data (action size, observation sizes) are read from the
data and appear nowhere here. "Paper" is Chi et al. 2023 and the configurations
published with it.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The paper's U-Net from low-dim observations; `data.dir` is for the user to say."""
    config = ConfigDict()
    config.task = "pusht"  # dpjax/tasks: environment, observations, seeds, score
    config.seed = 42  # of weights, batches and noise; the paper's first of three
    config.distributed = False  # several processes train together (docs/scaling.md)

    config.horizon = ConfigDict(
        dict(
            obs=2,  # To, steps observed (paper, table 9)
            predict=16,  # Tp, steps predicted; a U-Net must be able to halve it
            act=8,  # Ta, steps executed before the next look
        )
    )
    config.data = ConfigDict(
        dict(
            dir="",  # an RLDS directory (python -m dpjax.convert, dpjax.demos), or "a,b"
            weights="",  # of several, "2,1": their shares of every batch; "": as their sizes
            split="train",
            # column: path inside an RLDS step; the task turns columns into observations.
            # Task custom: empty for all that there is
            columns=dict(state="observation/state", action="action"),
            on_bad="refuse",  # or "skip": leave bad episodes out, counted and said
            val_fraction=0.02,  # share of episodes held out (paper)
            val_seed=42,
            # {new key: observation}: its value at the episode's end, observed at every step
            goals=ConfigDict(),
            mirror=False,  # train on the mirror images too, where the task has one (pusht)
            max_episodes=0,  # train on this many, the first of a fixed shuffle; 0: all
            memory=0.0,  # GiB of decoded images; more go to disk. 0: half of the machine's
            spill="",  # folder for them; "": the system's temporary one
        )
    )
    config.representation = ConfigDict(
        dict(
            # {column: "3 axis_angle 1"}: which of its dims are a rotation, and in what form
            # (dpjax/core/rotations.py); the network sees it as 6-D (Zhou et al. 2019)
            layouts=ConfigDict(),
            # observation that actions are learned relative to, its newest; "": absolute ones
            relative="",
        )
    )
    # Observations that are images: {key: dict(size, resize, crop)}, each (height, width) in
    # px. size: what the data must have. resize: (), or to what. crop: (), or what the network
    # sees of it: at random in training, the centre otherwise (paper: 84 of 96 px).
    config.cameras = ConfigDict()
    config.augment = ConfigDict(
        dict(
            shift=0,  # px, in training: images are moved by up to so much
            brightness=0.0,  # factors from 1 - x to 1 + x
            contrast=0.0,
            saturation=0.0,
            hue=0.0,  # parts of the colour circle
        )
    )
    config.encoder = ConfigDict(
        dict(
            depth=18,  # of the ResNet: 18 or 34
            width=64,  # channels of its first stage
            pool="spatial_softmax",  # or average
            keypoints=32,  # maps of the spatial softmax
            features=64,  # a camera's
            shared=False,  # one encoder for all cameras
            norm="group",  # or frozen: BatchNorm's place taken by fixed numbers (weights)
            weights="",  # torchvision's ResNet, .safetensors or .npz; "": from scratch
            lr=1.0,  # times optim.lr; 0: the cameras' encoders stay as they are
        )
    )
    config.normalize = ConfigDict(
        dict(
            action="limits",  # limits, gaussian, quantile, identity (dpjax/core/normalizer.py)
            obs="limits",  # of every observation key that is not an image
            per_key=ConfigDict(),  # {key: mode} where one is to be other than these
            image="unit",  # pixels to [-1, 1]; imagenet: by ImageNet's mean and deviation
            quantile=0.01,  # share left out at each end by "quantile"
            min_range=1e-4,  # data units; dims that move less get scale 1 (paper's code)
        )
    )
    config.denoiser = ConfigDict(
        dict(
            name="unet1d",
            widths=(256, 512, 1024),  # channels of the levels
            kernel_size=5,
            groups=8,  # of the GroupNorms
            time_features=256,  # size of the noise level's embedding
            film_scale=True,  # modulate by scale and bias, not bias only
        )
    )
    config.method = "diffusion"  # flows too; or meanflow: 1 to 4 steps (Geng et al. 2025)
    config.meanflow = ConfigDict(
        dict(
            share=0.25,  # of the rows that learn an interval, not a moment (their table 1a)
            power=1.0,  # of the adaptive weight: 0 none, 1 nearly the error's norm (table 1e)
        )
    )
    config.condition = "features"  # of all steps; local: step by step (unet1d); inpaint
    # or linear, scaled_linear, sigmoid; flow: straight lines (Liu et al. 2023), K scales time,
    # which MeanFlow wants as it is: K = 1
    config.schedule = ConfigDict(dict(name="cosine", num_levels=100))  # K
    config.predict = "epsilon"  # or sample, v; velocity is a flow's (Lipman et al. 2023)
    config.sampler = ConfigDict(
        dict(
            name="ddpm",  # or ddim, on a flow called euler; dpm_solver (++2M; Lu et al. 2022),
            # heun (Karras et al. 2022, algorithm 1; asks the network 2 S - 1 times)
            num_steps=100,  # S
            # leading, trailing, linspace (dpjax/diffusion/schedules.py). auto: leading where S
            # divides K, as published results have it; of heun always trailing
            spacing="auto",
            eta=0.0,  # ddim only: 0 deterministic, 1 as much fresh noise as ddpm
            clip=1.0,  # bound of the predicted x_0, network units
            # current, or 0.11: ddpm and ddim as that diffusers walked, for the weights of its
            # time (dpjax/diffusion/diffusers_0_11.py)
            diffusers="current",
            # share of the path that a plan skips by starting from the last one (Janner et al.
            # 2022, sec. 5.4); 0: from noise always, below 1
            warm_start=0.0,
            unroll=1,  # sampling steps that one turn of the compiled loop holds
        )
    )
    config.loss = ConfigDict(dict(mask_padding=False))  # padded steps count, as in the paper

    config.optim = ConfigDict(
        dict(
            lr=1e-4,
            b1=0.95,
            b2=0.999,
            eps=1e-8,
            weight_decay=1e-6,
            decay="all",  # or "matrices": spares biases, norms, positions (transformers)
            warmup=500,  # steps from 0 to lr; then a cosine to 0 at train.steps
            grad_clip=10.0,  # of the global norm; 0 for none (LeRobot's value)
        )
    )
    config.ema = ConfigDict(dict(power=0.75, max=0.9999))  # paper's code
    config.train = ConfigDict(
        dict(
            steps=450_000,  # optimizer steps (paper: 4,500 epochs)
            batch=256,  # rows of the global batch
            steps_per_call=1,  # optimizer steps in one compiled call; about 2 s at most
            parallel="pmap",  # or mesh: the compiler splits the batch; one device: the same
            # trainings side by side in one program, of seeds config.seed, + 1, …: each a run of
            # its own in <workdir>/seed_<n>, with the weights that it would have alone
            seeds=1,
            accumulate=1,  # parts that a step's batch is worked through in: less memory
            init_from="",  # a run folder whose averaged weights and units are the start
        )
    )
    config.compute = ConfigDict(
        dict(
            dtype="float32",  # or bfloat16, in the networks only: weights, optimizer, loss and
            # sampler stay float32
            remat=False,  # blocks are computed again in the backward pass: slower, less memory
        )
    )
    # Cadences are in optimizer steps, rounded up to the end of a call; 0 is never.
    config.log = ConfigDict(dict(every=50))
    config.val = ConfigDict(
        dict(
            every=1000,
            windows=128,  # held-out windows, evenly spread over the held-out episodes
            samples=4,  # chunks sampled a window: best and mean error
            num_steps=10,  # S of these samples; all 100 take as long as 300 training steps
        )
    )
    config.eval = ConfigDict(
        dict(
            every=10_000,
            episodes=50,  # on the selection seeds, never the official ones
            num_envs=50,  # episodes in flight, one batch of the policy
            num_steps=10,  # S while training; the final numbers use sampler.num_steps
        )
    )
    config.save = ConfigDict(dict(every=5_000, keep_best=3))  # by score; the last always
    return config
