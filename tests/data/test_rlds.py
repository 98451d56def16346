"""RLDS sets are read, or one line names the file, episode, step and key."""

import logging
import shutil

import numpy as np
import pytest
from support.rlds_sets import FEATURES, WANT, make_episodes, refusal, rewrite, shard, write
import tensorflow_datasets as tfds

from dpjax.data import rlds
from dpjax.data.episodes import fingerprint


@pytest.fixture
def data(tmp_path):
    write(tmp_path / "set", make_episodes())
    return tmp_path / "set"


def test_the_version_directory_itself_can_be_named(data):
    read = rlds.read(data / "1.0.0", features={"x": "action"})
    assert list(read.columns) == ["x"] and read.source.endswith("1.0.0")


def test_the_newest_version_is_read(data):
    shutil.copytree(data / "1.0.0", data / "10.0.0")
    shutil.copytree(data / "1.0.0", data / "9.0.0")
    assert rlds.read(data, features=FEATURES).source.endswith("10.0.0")


def test_a_set_written_by_a_tfds_builder_is_read(tmp_path):
    """With shuffled episodes, two shards and a reward: not our writer's habits."""

    class Arms(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("2.1.0")
        name = "arms"

        def _info(self):
            step = {"action": tfds.features.Tensor(shape=(2,), dtype=np.float32)}
            step |= {"reward": np.float32, "is_first": np.bool_}
            features = tfds.features.FeaturesDict({"steps": tfds.features.Dataset(step)})
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, _):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for i in range(6):
                first, reward = np.arange(i + 1) == 0, np.full(i + 1, i, np.float32)
                action = np.full((i + 1, 2), i, np.float32)
                yield i, {"steps": {"action": action, "reward": reward, "is_first": first}}

    builder = Arms(data_dir=str(tmp_path), file_format="array_record")
    config = tfds.download.DownloadConfig(num_shards=2)
    builder.download_and_prepare(download_config=config)
    read = rlds.read(tmp_path / "arms", features={"action": "action", "reward": "reward"})
    np.testing.assert_array_equal(np.sort(read.lengths), [1, 2, 3, 4, 5, 6])
    np.testing.assert_array_equal(read.columns["action"][:, :1], read.columns["reward"])


def test_a_directory_that_is_not_a_data_set_is_named(tmp_path, data):
    assert "no such directory" in refusal(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "expected dataset_info.json" in refusal(tmp_path / "empty")
    (data / "1.0.0" / "dataset_info.json").write_text("{")
    assert "can't be read" in refusal(data)


def test_a_missing_features_file_is_named(data):
    (data / "1.0.0" / "features.json").unlink()
    assert "features.json" in refusal(data)


def floats(example, key):
    return example.features.feature[key].float_list.value


def test_a_wrong_key_gets_the_nearest_spelling_and_all_of_them(data):
    line = refusal(data, features={"state": "observation/stat"})
    assert "did you mean 'observation/state'" in line and "action" in line


def test_a_wrong_split_lists_the_splits(data):
    assert "no split 'test'; choose one of train" in refusal(data, split="test")


def test_float64_columns_are_cast_with_a_warning(data, caplog):
    file = data / "1.0.0" / "features.json"
    file.write_text(file.read_text().replace("float32", "float64"))
    with caplog.at_level(logging.WARNING, "dpjax"):
        read = rlds.read(data, features=FEATURES)
    assert fingerprint(read) == WANT
    assert "action is float64: cast to float32" in caplog.text


def put_nan(examples):
    floats(examples[2], "steps/action")[17 * 2 + 1] = np.nan


def make_ragged(examples):
    examples[2].features.feature["steps/action"].float_list.value.extend([0.0] * 33)


def cut_odd(examples):
    del floats(examples[2], "steps/action")[-1:]


def make_int(examples):
    feature = examples[2].features.feature["steps/action"]
    feature.int64_list.value.extend([1] * 66)


def drop_key(examples):
    del examples[2].features.feature["steps/action"]


def make_empty(examples):
    for key, feature in examples[2].features.feature.items():
        if key.startswith("steps/"):
            feature.Clear()


BAD = {
    put_nan: "episode 2, step 17, action[1]: expected finite numbers, got nan (1 non-finite",
    make_ragged: "episode 2, action: expected shape (2,) per step, got (3,)",
    cut_odd: "episode 2, steps/action: expected 33 steps of 2 numbers, got 65 in all",
    make_int: "episode 2, steps/action: expected float_list, got int64_list",
    drop_key: "episode 2, steps/action: missing in this episode",
    make_empty: "episode 2, empty",
}


@pytest.mark.parametrize("spoil", BAD, ids=lambda f: f.__name__)
def test_a_bad_episode_is_named_or_skipped_with_a_warning(data, spoil, caplog):
    rewrite(data, spoil)
    line = refusal(data)
    assert BAD[spoil] in line and str(shard(data)) in line and "on_bad=skip" in line
    with caplog.at_level(logging.WARNING, "dpjax"):
        read = rlds.read(data, features=FEATURES, on_bad="skip")
    np.testing.assert_array_equal(read.lengths, [20, 1, 50])
    assert BAD[spoil] in caplog.text and "skipped 1 bad of 4 episodes" in caplog.text


def test_a_bad_column_that_is_not_wanted_does_not_matter(data):
    rewrite(data, put_nan)
    assert len(rlds.read(data, features={"state": "observation/state"}).ends) == 4


def test_no_good_episode_at_all_is_an_error(data):
    def spoil(examples):
        for example in examples:
            floats(example, "steps/action")[0] = np.inf

    rewrite(data, spoil)
    assert "at least 1 good episode" in refusal(data, on_bad="skip")


def test_on_bad_has_two_values(data):
    assert "choose one of refuse, skip" in refusal(data, on_bad="ignore")
