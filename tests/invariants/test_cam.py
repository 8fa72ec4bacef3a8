"""Is LLaVA-CAM the gradient it claims to be, of every layer, and does it repeat?"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from repro.cam import llava_cam, prove_cam
from repro.models.rounding import NotAdmitted
from repro.truncation import truncated

#: Names of Llama's parts, by their roles.
MODULES = {
    "post_attention_norm": "post_attention_layernorm",
    "input_norm": "input_layernorm",
    "attention": "self_attn",
    "mlp": "mlp",
    "layer": "",
}
pytestmark = pytest.mark.invariant

#: Of heat in [0, 1]: float32 gradients summed in another order; measured 5e-5 at most, here times 20.
HEAT_TOLERANCE = 1e-3


def cells_of(prompt):
    """The cell of the grid that each image token lies in, -1 where in none."""
    return np.arange(len(prompt.segments.image)) if prompt.cells is None else prompt.cells


def slow_heat(lvlm, prompt, answer, noise):
    """LLaVA-CAM [2, N, cells] by one forward and one backward pass per layer and noisy image [n, 3, H, W].

    First with the gradients as they are, then with the positive ones alone. Tokens of one cell are summed.
    """
    rows = range(len(prompt.segments) - 1, len(prompt.segments) + len(answer) - 1)
    heat = np.zeros((2, lvlm.n_layers, len(prompt.segments.image)))
    for layer in range(lvlm.n_layers):
        norm = lvlm.decoder.layers[layer].post_attention_layernorm
        for one in noise:
            found = []
            handle = norm.register_forward_hook(
                lambda module, inputs, output, found=found: found.append(output.requires_grad_())
            )
            images = lvlm.with_noise(prompt, one[None])
            ids = lvlm.sequence(prompt, answer)
            logits = lvlm.model(input_ids=ids, **images, use_cache=False).logits[0]
            handle.remove()
            z = sum(logits[row, token] for row, token in zip(rows, answer, strict=True))
            (gradient,) = torch.autograd.grad(z, found)
            gradient = gradient[0, prompt.segments.image].double().cpu().numpy()
            feature = found[0].detach()[0, prompt.segments.image].double().cpu().numpy()
            for kind, part in enumerate((gradient, np.maximum(gradient, 0))):
                heat[kind, layer] += np.maximum(feature @ part.mean(axis=0), 0)
    in_cell = cells_of(prompt)[:, None] == np.arange(prompt.grid[0] * prompt.grid[1])
    heat = heat @ in_cell
    peak = heat.max(axis=2, keepdims=True)
    return np.divide(heat, peak, out=np.zeros_like(heat), where=peak > 0)


def noise_of(prompt, samples, seed, scale):
    shape = next(iter(prompt.image_inputs.values())).shape[1:]
    return scale * torch.randn(samples, *shape, generator=torch.Generator().manual_seed(seed))


def test_heat_equals_one_backward_pass_per_layer(lvlm, prompt, answer, about):
    expected = slow_heat(lvlm, prompt, answer, noise_of(prompt, 2, 3, 0.1))

    for relu_gradients in (False, True):
        found = llava_cam(lvlm, prompt, answer, samples=2, seed=3, relu_gradients=relu_gradients)
        found = found.reshape(lvlm.n_layers, -1)
        for layer, (one, other) in enumerate(zip(found, expected[int(relu_gradients)], strict=True), 1):
            with about(f"llava_cam and a backward pass by hand differ, layer {layer}, {relu_gradients=}"):
                np.testing.assert_allclose(one, other, rtol=0, atol=HEAT_TOLERANCE)


def test_heat_is_normalised_once_per_layer_and_zero_in_the_last(lvlm, prompts, answer):
    for prompt in prompts:
        heat = llava_cam(lvlm, prompt, answer, samples=2)
        peak = heat.max(axis=(1, 2))

        assert heat.shape == (lvlm.n_layers, *prompt.grid) and heat.dtype == np.float32
        assert heat.min() >= 0 and heat.max() <= 1
        assert np.isin(peak, (0, 1)).all() and (peak == 1).any()
        assert peak[-1] == 0, "nothing mixes tokens after the last layer's norm"


@pytest.mark.parametrize("keep", [0, 5])
def test_heat_ends_where_the_image_does(lvlm, prompt, answer, keep):
    plain = llava_cam(lvlm, prompt, answer)
    for after in range(lvlm.n_layers + 1):
        heat = {}
        for mode in ("drop", "mask"):
            with truncated(lvlm, after, keep=keep, mode=mode) as cut:
                heat[mode] = llava_cam(lvlm, prompt, answer)
        np.testing.assert_allclose(heat["drop"], heat["mask"], rtol=0, atol=HEAT_TOLERANCE)
        if after < lvlm.n_layers:
            left = np.isin(prompt.segments.image, cut.stay[0].cpu().numpy())
            gone = ~np.isin(np.arange(heat["drop"][0].size), cells_of(prompt)[left])
            for one in heat.values():
                assert (one.reshape(lvlm.n_layers, -1)[after:, gone] == 0).all()
        if keep == 0:
            # Behind the attention of layer ``after`` nothing reads the image either.
            assert all((one[max(after - 1, 0) :] == 0).all() for one in heat.values())
    np.testing.assert_array_equal(heat["drop"], plain)


def test_heat_does_not_depend_on_how_many_copies_run_at_once(lvlm, prompt, answer):
    by_size = [llava_cam(lvlm, prompt, answer, samples=4, batch_size=size) for size in (4, 3, 1)]

    for heat in by_size[1:]:
        np.testing.assert_allclose(heat, by_size[0], rtol=0, atol=HEAT_TOLERANCE)


@pytest.mark.parametrize("module", list(MODULES))
def test_a_module_is_differentiated_at_its_own_output(lvlm, prompt, answer, module):
    """One layer by hand: z again from the module's output moved along a direction, by central differences."""
    layer = 1
    hooked = lvlm.decoder.layers[layer].get_submodule(MODULES[module])
    image = torch.from_numpy(prompt.segments.image)
    seen = {}

    def forward(shift=None):
        def hook(_, inputs, output):
            first = output[0] if isinstance(output, tuple) else output
            seen["output"] = first.detach().clone()
            if shift is not None:
                first = first + shift
            return (first, *output[1:]) if isinstance(output, tuple) else first

        handle = hooked.register_forward_hook(hook)
        try:
            rows = lvlm.logits(prompt, answer[:-1]).double()[-len(answer) :]
        finally:
            handle.remove()
        return float(rows.gather(1, torch.tensor([*answer], device=rows.device)[:, None]).sum())

    forward()
    feature = seen["output"][0, image]
    width = feature.shape[-1]
    alpha = np.zeros(width)
    for channel in np.random.default_rng(0).choice(width, 6, replace=False):
        shift = torch.zeros_like(seen["output"])
        shift[0, image, channel] = 1e-2
        alpha[channel] = (forward(shift) - forward(-shift)) / 2e-2 / len(image)
    exact = alphas(lvlm, prompt, answer, module)[layer]
    chosen = alpha != 0
    np.testing.assert_allclose(alpha[chosen], exact[chosen], rtol=0.05, atol=2e-3)
    heat = llava_cam(lvlm, prompt, answer, noise=0, module=module)
    if prompt.cells is None:
        expected = np.maximum(feature.cpu().numpy() @ exact, 0)
        np.testing.assert_allclose(heat[layer].ravel(), expected / max(expected.max(), 1e-30), atol=1e-3)
    # Behind the last layer's attention nothing mixes tokens any more.
    assert (heat[-1] == 0).all() == (module != "input_norm")


def alphas(lvlm, prompt, answer, module):
    """Mean gradient at image positions of every layer, from hooks of its own."""
    outputs = []

    def hook(_, inputs, output):
        first = output[0] if isinstance(output, tuple) else output
        first.requires_grad_() if not first.requires_grad else first.retain_grad()
        outputs.append(first)

    handles = [one.get_submodule(MODULES[module]).register_forward_hook(hook) for one in lvlm.decoder.layers]
    logits = lvlm.model(input_ids=lvlm.sequence(prompt, answer[:-1]), **prompt.image_inputs).logits[0]
    for handle in handles:
        handle.remove()
    rows = logits[-len(answer) :]
    rows.gather(1, torch.tensor([*answer], device=rows.device)[:, None]).sum().backward()
    image = torch.from_numpy(prompt.segments.image)
    return [one.grad[0, image].mean(dim=0).double().cpu().numpy() for one in outputs]


def test_an_unknown_module_is_refused(lvlm, prompt, answer):
    with pytest.raises(ValueError, match="module must be one of post_attention_norm, .*, not 'norm'"):
        llava_cam(lvlm, prompt, answer, module="norm")


def test_a_model_that_mixes_tokens_behind_its_last_attention_is_refused(lvlm):
    """Its heat of the last layer would not be the zero that readers are told to expect."""
    refused = 0
    for share in (0.1, -0.1):  # heat is cut off at zero, so one of them shows

        def mix(module, args, output, share=share):
            return output + share * output.mean(dim=1, keepdim=True)

        handle = lvlm.decoder.layers[-1].mlp.register_forward_hook(mix)
        try:
            prove_cam(lvlm)
        except NotAdmitted as error:
            refused += "heat of the last layer is not zero" in str(error)
        finally:
            handle.remove()
    assert refused
    assert "behind the attention" in prove_cam(lvlm)


def test_the_seed_decides_the_noise(lvlm, prompt, answer):
    torch.manual_seed(1)
    first = llava_cam(lvlm, prompt, answer, samples=2, seed=5)
    torch.manual_seed(2)
    state = torch.get_rng_state()

    np.testing.assert_array_equal(llava_cam(lvlm, prompt, answer, samples=2, seed=5), first)
    assert torch.equal(torch.get_rng_state(), state), "the caller's random numbers are left alone"
    assert abs(llava_cam(lvlm, prompt, answer, samples=2, seed=6) - first).max() > 2 * HEAT_TOLERANCE


def test_without_noise_the_seed_does_not_matter(lvlm, prompt, answer):
    first = llava_cam(lvlm, prompt, answer, noise=0, seed=1)

    np.testing.assert_array_equal(llava_cam(lvlm, prompt, answer, noise=0, seed=2), first)
    several = llava_cam(lvlm, prompt, answer, noise=0, samples=3)
    np.testing.assert_allclose(several, first, rtol=0, atol=HEAT_TOLERANCE)


def test_the_threshold_only_removes_what_is_below_it(lvlm, prompt, answer):
    plain = llava_cam(lvlm, prompt, answer)
    cut = llava_cam(lvlm, prompt, answer, threshold=0.5)

    np.testing.assert_array_equal(cut, np.where(plain < 0.5, 0, plain))
    assert (cut != plain).any()


def test_parameters_are_left_without_gradients(lvlm, prompt, answer):
    llava_cam(lvlm, prompt, answer)

    assert not any(p.requires_grad or p.grad is not None for p in lvlm.model.parameters())


def test_heat_is_the_same_under_a_callers_inference_mode(lvlm, prompt, answer):
    plain = llava_cam(lvlm, prompt, answer)
    for mode in (torch.inference_mode, torch.no_grad):
        with mode():
            np.testing.assert_array_equal(llava_cam(lvlm, prompt, answer), plain)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"answer": []}, "at least one answer token"),
        ({"samples": 0}, "samples and batch_size must be at least 1, not 0"),
        ({"batch_size": 0}, "samples and batch_size must be at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(lvlm, prompt, answer, arguments, message):
    with pytest.raises(ValueError, match=message):
        llava_cam(lvlm, prompt, **{"answer": answer, **arguments})


def test_weights_that_are_not_a_number_are_named_by_layer(broken, prompt, answer):
    with pytest.raises(ValueError, match="heat of layer 1 is not finite"):
        llava_cam(broken, prompt, answer)
