"""An episode does not depend on its neighbours; one that something spoils is broken."""

import jax
import numpy as np
import pytest

from dpjax import tasks
from dpjax.core.errors import UserError
from dpjax.evaluation.rollout import rollout
from dpjax.tasks import Simulator


class Line:
    """A point on a line, to be driven to 10. breaks: {seed: the step at which it raises}."""

    def __init__(self, breaks):
        self.breaks = breaks

    def reset(self, seed):
        self.seed, self.x, self.t = seed, float(seed % 7), 0
        self.maybe_break("reset")
        return {"x": np.array([self.x], np.float32)}

    def step(self, action):
        self.maybe_break(self.t)
        self.x, self.t = self.x + float(action[0]), self.t + 1
        return {"x": np.array([self.x], np.float32)}, self.x / 10, self.x >= 10

    def maybe_break(self, when):
        if self.breaks.get(self.seed) == when:
            raise OSError("the simulator died")


def line(breaks=None, max_steps=20):
    return Simulator(
        make=lambda: Line(breaks or {}),
        reset=lambda env, seed: env.reset(seed),
        step=lambda env, action: env.step(action),
        render=lambda env: np.full((8, 8, 3), min(int(env.x * 10), 255), np.uint8),
        draw_actions=lambda frame, actions: frame,
        score=lambda best: min(best, 1.0),
        success=lambda best: best >= 1.0,
        max_steps=max_steps,
        action_low=-1.0,
        action_high=1.0,
    )


def observe(raw):
    return {"position": raw["x"]}


def noisy_actions(keys, obs, previous=None):
    """Steps of about 0.5, drawn from each example's key, and a little of what is observed."""
    noise = jax.vmap(lambda key: jax.random.uniform(key, (8, 1)))(keys)
    return np.asarray(noise) + 0.01 * np.asarray(obs["position"])[:, -1:, :]


def run(simulator, sample_actions=noisy_actions, **options):
    options = {"seeds": range(100, 109), "num_envs": 4, "observe": observe, **options}
    options = {"observed": 2, "executed": 3, "rng": jax.random.key(0), **options}
    return rollout(simulator, sample_actions=sample_actions, progress=False, **options)


def assert_same(one, other):
    assert [e.seed for e in one] == [e.seed for e in other]
    for a, b in zip(one, other):
        np.testing.assert_array_equal(a.actions, b.actions)
        np.testing.assert_array_equal(a.progress, b.progress)
        assert (a.score, a.success, a.steps) == (b.score, b.success, b.steps)


def test_one_environment_and_four_give_the_same_episodes():
    episodes = run(line(), num_envs=4)
    assert_same(episodes, run(line(), num_envs=1))
    assert len({episode.steps for episode in episodes}) > 1  # they do end apart


def test_an_episode_is_recorded_as_it_happened():
    (episode,) = run(line(), seeds=[102])
    x = np.append(episode.columns["x"][:, 0], 102 % 7 + episode.actions.sum())
    np.testing.assert_allclose(np.diff(x), episode.actions[:, 0], atol=1e-5)
    np.testing.assert_allclose(episode.progress, x[1:] / 10, atol=1e-6)
    assert x[0] == 102 % 7 and episode.success and episode.score == 1.0
    assert (episode.progress[:-1] < 1).all()  # over as soon as it is done


def test_an_episode_ends_at_its_last_step():
    still = lambda keys, obs, previous=None: np.zeros((len(keys), 8, 1), np.float32)
    episodes = run(line(max_steps=7), still)
    assert {episode.steps for episode in episodes} == {7}
    assert not any(episode.success for episode in episodes)


@pytest.mark.parametrize("when", ["reset", 4])
def test_a_simulator_that_dies_breaks_its_episode_only(when):
    episodes = run(line({103: when}))
    broken = [episode for episode in episodes if episode.broken]
    assert [episode.seed for episode in broken] == [103]
    assert "OSError: the simulator died" in broken[0].broken and np.isnan(broken[0].score)
    rest = [seed for seed in range(100, 109) if seed != 103]
    assert_same([e for e in episodes if not e.broken], run(line(), seeds=rest))


def test_progress_that_is_not_finite_breaks_the_episode():
    step = lambda env, action: ({"x": np.zeros(1, np.float32)}, np.nan, False)
    (episode,) = run(line()._replace(step=step), seeds=[100])
    assert episode.broken == "step 0: ValueError: progress is nan" and episode.steps == 0


def test_a_simulator_that_never_starts_breaks_all():
    episodes = run(line(dict.fromkeys(range(100, 109), "reset")))
    assert all(episode.broken for episode in episodes) and len(episodes) == 9


def test_actions_that_are_not_finite_break_their_episode_only():
    def sample_actions(keys, obs, previous=None):
        actions = np.array(noisy_actions(keys, obs))
        start = np.asarray(obs["position"])[:, 0, 0]
        actions[start == 103 % 7, 2] = np.nan  # the first action chunk of seed 103
        return actions

    episodes = run(line(), sample_actions, seeds=range(100, 105), observed=1)
    (broken,) = [episode for episode in episodes if episode.broken]
    assert (broken.seed, broken.steps) == (103, 0) and "not finite" in broken.broken
    rest = run(line(), seeds=[100, 101, 102, 104], observed=1)
    assert_same([e for e in episodes if not e.broken], rest)


def test_the_policy_sees_one_batch_size():
    shapes = set()

    def sample_actions(keys, obs, previous=None):
        shapes.add(obs["position"].shape)
        return noisy_actions(keys, obs)

    run(line(), sample_actions, seeds=range(100, 109), num_envs=4)
    assert shapes == {(4, 2, 1)}


def test_actions_out_of_bounds_are_counted_and_executed():
    far = lambda keys, obs, previous=None: np.full((len(keys), 8, 1), 1.5, np.float32)
    (episode,) = run(line(), far, seeds=[98])
    assert episode.out_of_bounds == episode.steps == 7  # 7 steps of 1.5 pass 10
    assert (episode.actions == 1.5).all()


def test_frames_are_kept_of_the_seeds_asked_for():
    episodes = run(line(), seeds=[100, 101], record=[101])
    assert episodes[0].frames is None
    assert len(episodes[1].frames) == episodes[1].steps + 1


def test_a_missing_simulator_does_not_count_as_a_broken_episode():
    def make():
        raise UserError("install it")

    with pytest.raises(UserError, match="install it"):
        run(line()._replace(make=make))


def test_nothing_to_run_is_refused():
    with pytest.raises(UserError, match="seeds is empty: give at least 1 seed"):
        run(line(), seeds=[])
    with pytest.raises(UserError, match="num_envs=0 must be at least 1") as error:
        run(line(), num_envs=0)
    assert error.value.argument == "num_envs"


def test_pusht_runs_and_does_not_depend_on_its_company():
    pytest.importorskip("gym_pusht", reason="the simulator is not installed: .[sim]")
    task = tasks.get("pusht")
    simulator = task.simulator._replace(max_steps=40)

    def to_the_block(keys, obs, previous=None):
        middle = obs["keypoints"][:, -1].reshape(-1, 9, 2).mean(1)
        agent = obs["agent_pos"][:, -1]
        share = np.linspace(0, 1, 16, dtype=np.float32)[None, :, None]
        return agent[:, None] + (middle - agent)[:, None] * share

    options = dict(observe=task.observe, seeds=range(200000, 200005), executed=8)
    episodes = run(simulator, to_the_block, num_envs=1, **options)
    assert_same(episodes, run(simulator, to_the_block, num_envs=4, **options))
    assert not any(episode.broken for episode in episodes)
    moved = [np.ptp(episode.columns["state"][:, 2:4], axis=0).max() for episode in episodes]
    assert max(moved) > 10  # px: somebody pushed the block


def test_raw_columns_are_kept_of_the_seeds_asked_for():
    episodes = run(line(), keep=[103])
    assert [e.seed for e in episodes if e.columns] == [103]
    assert all(len(e.actions) == e.steps for e in episodes)


def test_each_episode_is_handed_on_when_it_has_ended():
    ended = []
    episodes = run(line({103: "reset"}), on_end=ended.append)
    assert sorted(e.seed for e in ended) == [e.seed for e in episodes]
    assert all(any(e is one for one in ended) for e in episodes)
