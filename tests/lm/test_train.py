import contextlib
import csv
import json
import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from nanoq import store
from nanoq.lm import GPT, GPTConfig, TrainConfig, train
from nanoq.lm import train as package_function
from nanoq.lm.training import HISTORY, STATE, batch_at, make_optimizers

module = sys.modules[package_function.__module__]  # `nanoq.lm.train` is the function
SHAPE = GPTConfig(vocab_size=7, context=16, layers=2, heads=2, width=16, dropout=0.1)
TOKENS = torch.arange(2000) % 7
VALID = TOKENS[:100]
STEPS = 8
CONFIG = TrainConfig(tokens=STEPS * 4 * 16, batch=4, warmup=2, evaluate_every=3, seed=5)


def run(config=CONFIG, out=None, shape=SHAPE, resume=False):
    """Train a fresh model; return its weights and its history without the seconds."""
    model = GPT(shape, seed=1)
    history = train(model, TOKENS, VALID, config, out, resume)
    return model.state_dict(), [{k: v for k, v in row.items() if k != "seconds"} for row in history]


def script(body, *command, cwd):
    """Run a program that has this module's names, in a process of its own."""
    program = Path(cwd) / "program.py"
    program.write_text(f"from test_train import *\n{body}")
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    return subprocess.run([sys.executable, *command, program], cwd=cwd, env=environment, capture_output=True, text=True)


@contextlib.contextmanager
def at_step(step, act):
    """Call `act` when the data of a step, counted from 1, is asked for."""
    def acting(tokens, at, *arguments):
        if at == step - 1:
            act()
        return batch_at(tokens, at, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "batch_at", acting)
        yield


class Crash(Exception):
    """What stops a training in these tests."""


def crash():
    raise Crash


def assert_same_weights(a, b):
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_the_loss_falls_on_a_text_that_repeats(optimizer, precision):
    config = TrainConfig(tokens=120 * 8 * 16, batch=8, optimizer=optimizer, precision=precision, warmup=5,
                         evaluate_every=40)
    _, history = run(config, shape=replace(SHAPE, dropout=0.0))
    assert history[-1]["valid_loss"] < 0.3 < 1.0 < history[0]["train_loss"]


@given(step=st.integers(0, 500), seed=st.integers(0, 1000), batch=st.integers(1, 9))
def test_a_batch_is_a_function_of_its_arguments_alone(step, seed, batch):
    first = batch_at(TOKENS, step, batch, 16, seed)
    batch_at(TOKENS, step + 1, batch, 16, seed)
    assert torch.equal(first, batch_at(TOKENS, step, batch, 16, seed))


@given(length=st.integers(9, 60), context=st.integers(1, 4), batch=st.integers(1, 7), seed=st.integers(0, 99))
def test_an_epoch_reads_every_window_once(length, context, batch, seed):
    tokens = torch.arange(length)
    per_epoch = (length - 1) // context - 1
    rows = torch.cat([batch_at(tokens, step, batch, context, seed) for step in range(2 * per_epoch // batch + 1)])
    assert torch.equal(rows - rows[:, :1], torch.arange(context + 1).expand_as(rows))  # whole, and inside the text
    for epoch in range(2):
        starts = sorted(rows[epoch * per_epoch : (epoch + 1) * per_epoch, 0].tolist())
        assert starts == list(range(starts[0], starts[0] + per_epoch * context, context))


def test_the_order_of_an_epoch_is_drawn_once(monkeypatch):
    drawn, draw = [], torch.randperm
    monkeypatch.setattr(torch, "randperm", lambda *a, **k: drawn.append(a) or draw(*a, **k))
    for step in range(9):
        batch_at(torch.arange(1003), step, 4, 10, seed=987_654)  # 99 windows in an epoch
    assert len(drawn) == 1


def test_epochs_and_seeds_differ_in_order():
    first, *others = [batch_at(torch.arange(402), *at)[:, 0] for at in ((0, 19, 20, 0), (1, 19, 20, 0), (0, 19, 20, 1))]
    assert not any(torch.equal(first, other) for other in others)


def test_a_text_shorter_than_two_windows_is_an_error():
    with pytest.raises(ValueError, match="32 tokens are too few to train with a context of 16"):
        batch_at(TOKENS[:32], 0, 1, 16, 0)


@pytest.mark.parametrize(("schedule", "factors"), [
    ("linear", {0: 1 / 11, 9: 10 / 11, 10: 1.0, 39: 1.0, 40: 1.0, 70: 0.5, 99: 1 / 60}),
    ("cosine", {0: 1 / 11, 9: 10 / 11, 10: 1.0, 55: 0.55, 100: 0.1}),
])
def test_the_learning_rate_warms_up_and_decays(schedule, factors):
    config = TrainConfig(warmup=10, schedule=schedule, decay_from=0.4)
    assert {step: config.lr_factor(step, 100) for step in factors} == pytest.approx(factors)


@given(st.integers(1, 200), st.integers(0, 300), st.sampled_from(["linear", "cosine"]), st.floats(0, 1))
def test_no_step_has_a_rate_of_zero_or_above_the_peak(steps, warmup, schedule, decay_from):
    config = TrainConfig(warmup=warmup, schedule=schedule, decay_from=decay_from)
    assert all(0 < config.lr_factor(step, steps) <= 1 for step in range(steps))


def test_characters_are_rounded_down_to_whole_steps():
    assert TrainConfig(tokens=4 * 16 * 3 + 63, batch=4).steps(16) == 3


def test_fewer_characters_than_a_step_are_an_error():
    with pytest.raises(ValueError, match="63 tokens are less than one step of 4 sequences"):
        run(replace(CONFIG, tokens=63))


@pytest.mark.parametrize(("option", "value"), [
    ("optimizer", "sgd"), ("schedule", "step"), ("batch", 0), ("evaluate_every", 0), ("lr", -1.0), ("lr", math.nan),
    ("lr", math.inf), ("lr_rest", -1.0), ("warmup", -1), ("weight_decay", math.nan), ("clip", -1.0),
])
def test_an_option_that_is_none_is_an_error_that_names_it(option, value):
    with pytest.raises(ValueError, match=option):
        TrainConfig(**{option: value})


@pytest.mark.parametrize(("optimizer", "lr_rest", "rest"), [("muon", 0.003, 0.003), ("adamw", None, 0.02)])
def test_every_parameter_has_one_optimiser_and_its_own_rate(optimizer, lr_rest, rest):
    model = GPT(replace(SHAPE, bias=True))
    optimizers = make_optimizers(model, TrainConfig(optimizer=optimizer, lr=0.02, lr_rest=lr_rest, weight_decay=0.1))
    groups = [group for o in optimizers for group in o.param_groups]
    found = {id(p): (g["peak_lr"], g["weight_decay"]) for g in groups for p in g["params"]}
    expected = {
        id(p): (0.02 if name.startswith("blocks") and p.dim() == 2 else rest, 0.1 if p.dim() == 2 else 0.0)
        for name, p in model.named_parameters()
    }
    assert found == expected and sum(len(g["params"]) for g in groups) == len(expected)


def test_the_gradient_is_clipped():
    free, clipped = (run(replace(CONFIG, optimizer="adamw", clip=clip, tokens=64))[0] for clip in (0, 1e-9))
    start = GPT(SHAPE, seed=1).state_dict()
    name = "blocks.0.mlp.up.weight"
    assert (clipped[name] - start[name]).norm() < 0.5 * (free[name] - start[name]).norm()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_a_resumed_training_ends_bit_for_bit_where_an_unbroken_one_does(tmp_path, optimizer, precision):
    config = replace(CONFIG, optimizer=optimizer, precision=precision)
    with at_step(5, crash), pytest.raises(Crash):
        run(config, tmp_path)
    weights, history = run(config, tmp_path, resume=True)
    unbroken, unbroken_history = run(config)
    assert_same_weights(weights, unbroken)
    assert history == unbroken_history and [row["step"] for row in history] == [3, 6, 8]


def test_bf16_is_for_products_and_weights_stay_in_float32():
    (single, single_history), (brief, brief_history) = run(), run(replace(CONFIG, precision="bf16"))
    assert all(weight.dtype == torch.float32 for weight in brief.values())
    assert not torch.equal(single["blocks.0.mlp.up.weight"], brief["blocks.0.mlp.up.weight"])
    assert brief_history[-1]["valid_loss"] == pytest.approx(single_history[-1]["valid_loss"], rel=0.02)


def test_a_state_from_before_there_was_a_precision_is_resumed_in_fp32(tmp_path):
    with at_step(5, crash), pytest.raises(Crash):
        run(out=tmp_path)
    with safe_open(tmp_path / STATE, "pt") as file:
        facts, tensors = json.loads(file.metadata()["nanoq"]), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    del facts["train"]["precision"]
    save_file(tensors, tmp_path / STATE, metadata={"nanoq": json.dumps(facts)})
    assert_same_weights(run(out=tmp_path, resume=True)[0], run()[0])


def test_resuming_a_finished_training_changes_nothing(tmp_path):
    weights, history = run(out=tmp_path)
    again, same = run(out=tmp_path, resume=True)
    assert_same_weights(again, weights)
    assert same == history


def test_dropout_is_part_of_what_is_resumed():
    weights, _ = run()
    without, _ = run(shape=replace(SHAPE, dropout=0.0))
    assert not torch.equal(weights["token_embedding.weight"], without["token_embedding.weight"])


STOPPED = """
def killed(tensors, path, save=store.save_file, saves=count(1), **options):
    save(tensors, path, **options)
    if next(saves) == 2:
        Path(path).write_bytes(Path(path).read_bytes()[:1000])
        os.kill(os.getpid(), signal.SIGKILL)

def stopped(name):
    if name == "while saving":
        store.save_file = killed
        run(out=name)
    with at_step(5, lambda: os.kill(os.getpid(), getattr(signal, name, signal.SIGKILL))):
        print(run(out=name)[1][-1]["step"], file=open(name + ".txt", "w"))

run()  # what the first training of a process imports, the children have from here
for name in ("in a step", "while saving", "SIGINT", "SIGTERM"):
    child = os.fork()
    if not child:
        stopped(name)
        os._exit(0)
    print(name, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), sep=",")
"""


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """The folder of trainings that were stopped in their fifth step or while saving, and how their processes ended."""
    folder = tmp_path_factory.mktemp("stopped")
    result = script(STOPPED, cwd=folder)
    assert result.returncode == 0, result.stderr
    return folder, dict(line.split(",") for line in result.stdout.splitlines())


@pytest.mark.parametrize("name", ["in a step", "while saving"])
def test_a_training_killed_by_force_resumes_as_if_it_had_not_been(stopped, name):
    folder, ends = stopped
    assert int(ends[name]) == -signal.SIGKILL
    weights, history = run(out=folder / name, resume=True)
    unbroken, unbroken_history = run()
    assert_same_weights(weights, unbroken)
    assert history == unbroken_history


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_ctrl_c_ends_the_step_saves_and_returns(stopped, name):
    folder, ends = stopped
    assert (ends[name], (folder / f"{name}.txt").read_text()) == ("0", "5\n")
    weights, history = run(out=folder / name, resume=True)
    assert_same_weights(weights, run()[0])
    assert [row["step"] for row in history] == [3, 5, 6, 8]


def test_a_second_ctrl_c_interrupts(tmp_path):
    def twice():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with at_step(2, twice), pytest.raises(KeyboardInterrupt):
        run()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The files of a training that ran to its end."""
    out = tmp_path_factory.mktemp("finished")
    run(out=out)
    return out


def test_the_history_is_a_table_with_a_row_for_each_validation(finished):
    with open(finished / HISTORY, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["step", "characters", "train_loss", "valid_loss", "lr_factor", "seconds"]
    assert [(row["step"], row["characters"]) for row in rows] == [("3", "192"), ("6", "384"), ("8", "512")]


def test_training_leaves_no_temporary_file(finished):
    assert sorted(path.name for path in finished.iterdir()) == [HISTORY, STATE]


def test_an_error_while_a_state_is_written_keeps_the_one_before(tmp_path, monkeypatch):
    saves = count(1)

    def failing(tensors, path, **options):
        save_file(tensors, path, **options)
        if next(saves) == 2:
            path.write_bytes(path.read_bytes()[:1000])
            raise OSError("no space left on device")

    monkeypatch.setattr(store, "save_file", failing)
    with pytest.raises(OSError, match="no space left"):
        run(out=tmp_path)
    monkeypatch.undo()
    assert sorted(path.name for path in tmp_path.iterdir()) == [HISTORY, STATE]
    assert_same_weights(run(out=tmp_path, resume=True)[0], run()[0])


@pytest.mark.parametrize("change", [{"batch": 2}, {"seed": 6}, {"lr": 0.5}, {"tokens": 6400}])
def test_resuming_with_another_recipe_is_an_error_that_names_the_change(finished, change):
    (name, value), = change.items()
    with pytest.raises(ValueError, match=f"{name}: {getattr(CONFIG, name)} then, {value} now"):
        run(replace(CONFIG, **change), finished, resume=True)


def test_resuming_with_another_model_is_an_error_that_names_the_change(finished):
    with pytest.raises(ValueError, match=r"another configuration \(width: 16 then, 32 now\)"):
        run(out=finished, shape=replace(SHAPE, width=32), resume=True)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.5, 0.999])
def test_a_truncated_state_is_an_error_that_names_it(finished, tmp_path, share):
    content = (finished / STATE).read_bytes()
    (tmp_path / STATE).write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=r"state\.safetensors is not a training state"):
        run(out=tmp_path, resume=True)


@pytest.mark.parametrize("facts", [None, "{}", "[]", "x", '{"train": 1, "model": 2}'])
def test_a_foreign_file_is_no_state(tmp_path, facts):
    save_file({"x": torch.zeros(2)}, tmp_path / STATE, metadata=facts and {"nanoq": facts})
    with pytest.raises(ValueError, match=r"state\.safetensors is not a training state"):
        run(out=tmp_path, resume=True)


def test_a_state_without_its_weights_is_no_state(finished, tmp_path):
    with module.safe_open(finished / STATE, framework="pt") as file:
        save_file({"rng": file.get_tensor("rng")}, tmp_path / STATE, metadata=file.metadata())
    with pytest.raises(ValueError, match=r"state\.safetensors is not a training state"):
        run(out=tmp_path, resume=True)


@pytest.mark.parametrize("out", [None, "nowhere"])
def test_resuming_from_nothing_is_an_error(tmp_path, out):
    with pytest.raises(FileNotFoundError, match=r"nothing to resume: there is no .*state\.safetensors"):
        run(out=out and tmp_path / out, resume=True)


def test_a_training_that_goes_astray_ends_with_an_error_and_keeps_what_it_saved(tmp_path):
    def poison():
        for group in optimizers[0].param_groups:
            group["peak_lr"] = math.nan

    optimizers, make = [], module.make_optimizers
    with pytest.MonkeyPatch.context() as patch, at_step(4, poison):
        patch.setattr(module, "make_optimizers", lambda *a: optimizers.extend(make(*a)) or optimizers)
        with pytest.raises(ValueError, match="the validation loss is nan at step 6; train with a smaller"):
            run(out=tmp_path)
    assert "nan" not in (tmp_path / HISTORY).read_text()
    assert_same_weights(run(out=tmp_path, resume=True)[0], run()[0])


@pytest.mark.parametrize("act", [lambda: None, crash], ids=["whole", "broken"])
def test_training_leaves_the_random_state_and_the_signal_handlers_alone(act):
    numbers = (signal.SIGINT, signal.SIGTERM)
    random_state, handlers = torch.get_rng_state(), list(map(signal.getsignal, numbers))
    with at_step(2, act), contextlib.suppress(Crash):
        run()
    assert torch.equal(torch.get_rng_state(), random_state)
    assert list(map(signal.getsignal, numbers)) == handlers


def test_the_global_random_state_does_not_steer_training():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        first, _ = run()
        torch.manual_seed(2)
        assert_same_weights(first, run()[0])


def test_a_trained_model_is_ready_for_evaluation():
    model = GPT(SHAPE)
    train(model, TOKENS, VALID, CONFIG)
    assert not model.training
