import pytest
import torch

from nanoq.compress import (
    block_influence,
    head_importance,
    head_similarity,
    make_student,
    remove_blocks,
    remove_heads,
    remove_inputs,
    remove_neurons,
)
from nanoq.lm import GPT, GPTConfig
from nanoq.lm.evaluate import row_losses
from nanoq.quant import LayerStats

CONFIG = GPTConfig(vocab_size=11, context=16, layers=3, heads=4, width=32, bias=True)
TOKENS = torch.randint(11, (12, 16), generator=torch.Generator().manual_seed(1))
ROWS = torch.randint(11, (12, 17), generator=torch.Generator().manual_seed(2))


def model():
    """A model with weights large enough that every part of it counts."""
    gpt = GPT(CONFIG)
    with torch.no_grad():
        for parameter in gpt.parameters():
            if parameter.dim() == 2:
                parameter.mul_(8)
    return gpt.eval()


@torch.no_grad()
def test_removing_heads_is_setting_their_columns_to_zero():
    whole, cut = model(), model()
    for head in (0, 3):
        whole.blocks[1].attention.out.weight[:, head * 8 : (head + 1) * 8] = 0
    remove_heads(cut, {1: [0, 3]})
    assert cut.blocks[1].attention.qkv.weight.shape == (48, 32) and cut.blocks[1].attention.out.weight.shape == (32, 16)
    assert torch.allclose(cut(TOKENS), whole(TOKENS), atol=1e-5)


@torch.no_grad()
def test_heads_that_stay_are_fitted_to_what_the_layer_gave():
    def error(gpt):
        return (gpt.blocks[0].attention(hidden) - wanted).square().mean()
    start = model()
    hidden = start.blocks[0].attention_norm(start.embed(TOKENS))
    wanted = start.blocks[0].attention(hidden)
    fitted = error(remove_heads(model(), {0: [1]}, TOKENS))
    assert 0 < fitted < 0.95 * error(remove_heads(model(), {0: [1]}))


@torch.no_grad()
def test_a_neuron_with_a_double_can_go_for_nothing():
    gpt = model()
    for block in gpt.blocks:  # the second half of the neurons repeats the first
        up, down = block.mlp.up, block.mlp.down
        up.weight[64:], up.bias[64:] = up.weight[:64], up.bias[:64]
        down.weight[:, 64:] = 0.01 * down.weight[:, 64:]  # and is read with less weight, so that it goes
    wanted = gpt(TOKENS)
    remove_neurons(gpt, 0.5, TOKENS)
    assert gpt.blocks[0].mlp.up.weight.shape == (64, 32)
    assert (gpt(TOKENS) - wanted).abs().max() < 0.02 * wanted.abs().max()


@torch.no_grad()
def test_a_smaller_layer_is_the_least_squares_fit():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(200, 8, generator=generator) @ torch.randn(8, 8, generator=generator)
    layer, keep = torch.nn.Linear(8, 5), torch.tensor([0, 2, 3, 7])
    small = remove_inputs(layer, keep, LayerStats.of(inputs), damping=0)
    exact = torch.linalg.lstsq(inputs[:, keep], inputs @ layer.weight.T).solution.T
    assert torch.allclose(small.weight, exact, atol=1e-4)
    assert torch.equal(remove_inputs(layer, keep).weight, layer.weight[:, keep])


def test_a_block_that_passes_its_input_on_has_no_influence():
    gpt = model()
    with torch.no_grad():
        for layer in (gpt.blocks[1].attention.out, gpt.blocks[1].mlp.down):
            layer.weight.zero_()
    influence = block_influence(gpt, TOKENS)
    assert abs(influence[1]) < 1e-6 < min(influence[0], influence[2])
    wanted = gpt(TOKENS)
    remove_blocks(gpt, [1])
    assert gpt.config.layers == 2 and torch.allclose(gpt(TOKENS), wanted, atol=1e-5)


def test_generation_works_after_blocks_and_heads_are_gone():
    from nanoq.lm.model import KVCache
    gpt = remove_heads(remove_blocks(model(), [0]), {1: [2]})
    cache = KVCache(gpt.config.layers)
    stepwise = torch.cat([gpt(TOKENS[:1, t : t + 1], cache) for t in range(16)], dim=1)
    assert torch.allclose(stepwise, gpt(TOKENS[:1]), atol=1e-4)


@torch.no_grad()
def test_importance_is_the_loss_without_the_head_and_leaves_the_model_alone():
    gpt, cut = model(), remove_heads(model(), {2: [1]})
    before = {name: p.clone() for name, p in gpt.named_parameters()}
    importance = head_importance(gpt, ROWS)
    assert importance.shape == (3, 4)
    assert abs(float(importance[2, 1]) - float(row_losses(cut, ROWS).mean() - row_losses(gpt, ROWS).mean())) < 1e-5
    assert all(torch.equal(before[name], p) for name, p in gpt.named_parameters())


@torch.no_grad()
def test_two_equal_heads_are_found_to_be_alike():
    gpt = model()
    attention = gpt.blocks[0].attention
    for part in range(3):  # queries, keys, values of head 1 become those of head 0
        attention.qkv.weight[part * 32 + 8 : part * 32 + 16] = attention.qkv.weight[part * 32 : part * 32 + 8]
        attention.qkv.bias[part * 32 + 8 : part * 32 + 16] = attention.qkv.bias[part * 32 : part * 32 + 8]
    attention.out.weight[:, 8:16] = -2 * attention.out.weight[:, :8]
    similarity = head_similarity(gpt, TOKENS)
    assert torch.allclose(similarity[0, :2], torch.ones(2), atol=1e-4)
    assert float(similarity[0, 2:].max()) < 0.99


def test_a_student_starts_with_blocks_of_its_teacher():
    teacher = model()
    student = make_student(teacher, 2)
    assert student.config.layers == 2 and len(teacher.blocks) == 3
    for own, theirs in zip(student.blocks, (teacher.blocks[0], teacher.blocks[2]), strict=True):
        assert torch.equal(own.mlp.up.weight, theirs.mlp.up.weight) and own.mlp.up.weight is not theirs.mlp.up.weight


def test_errors():
    for numbers in ([3], [-1], [0, 1, 2]):
        with pytest.raises(ValueError, match="cannot remove blocks"):
            remove_blocks(model(), numbers)
    for heads in ([4], [0, 1, 2, 3]):
        with pytest.raises(ValueError, match="of block 1 with heads 0..3"):
            remove_heads(model(), {1: heads})
    with pytest.raises(ValueError, match="no block 3 in a model with blocks 0..2"):
        remove_heads(model(), {3: [0]})
    for ask in (head_importance, head_similarity):
        with pytest.raises(ValueError, match="heads were removed from the model already"):
            ask(remove_heads(model(), {1: [0]}), ROWS)
    with pytest.raises(ValueError, match="none of its 128 neurons left"):
        remove_neurons(model(), 0.999, TOKENS)
    with pytest.raises(ValueError, match="ratio must lie in"):
        remove_neurons(model(), 1.0, TOKENS)
    for layers in (0, 4):
        with pytest.raises(ValueError, match="cannot be made of a teacher with 3"):
            make_student(model(), layers)
