"""Faults of a library that users could meet, as changes of transformers' text: (name, file, old text, new text).

Each old text stands in its file exactly once, in the versions that constraints.txt pins.
"""

# ruff: noqa: E501  (lines of another library)
from __future__ import annotations

LLAMA = "transformers/models/llama/modeling_llama.py"
QWEN2 = "transformers/models/qwen2/modeling_qwen2.py"
CLIP = "transformers/models/clip/modeling_clip.py"
LLAVA = "transformers/models/llava/modeling_llava.py"
NEXT = "transformers/models/llava_next/modeling_llava_next.py"
NEXT_IMAGES = "transformers/models/llava_next/image_processing_pil_llava_next.py"
BLIP = "transformers/models/instructblip/modeling_instructblip.py"
INTERN = "transformers/models/internvl/modeling_internvl.py"
PIL = "transformers/image_processing_backends.py"
TRANSFORMS = "transformers/image_transforms.py"
IMAGES = "transformers/image_processing_utils.py"
SDPA = "transformers/integrations/sdpa_attention.py"
MASKS = "transformers/masking_utils.py"
CACHE = "transformers/cache_utils.py"
ACTIVATIONS = "transformers/activations.py"
GENERATION = "transformers/generation/utils.py"
STOPPING = "transformers/generation/stopping_criteria.py"

FAULTS: list[tuple[str, str, str, str]] = [
    (
        "llama: epsilon of the norm ten times as large",
        LLAMA,
        "self.variance_epsilon = eps\n",
        "self.variance_epsilon = 10 * eps\n",
    ),
    (
        "llama: norm without epsilon",
        LLAMA,
        "torch.rsqrt(variance + self.variance_epsilon)",
        "torch.rsqrt(variance)",
    ),
    (
        "llama: norm squares in the model's own precision",
        LLAMA,
        "        hidden_states = hidden_states.to(torch.float32)\n",
        "",
    ),
    (
        "llama: norm subtracts the mean",
        LLAMA,
        "variance = hidden_states.pow(2)",
        "hidden_states = hidden_states - hidden_states.mean(-1, keepdim=True)\n        variance = hidden_states.pow(2)",
    ),
    (
        "llama: theta of the rotary embedding is always 10000",
        LLAMA,
        'base = config.rope_parameters["rope_theta"]',
        "base = 10000.0",
    ),
    (
        "llama: theta of the rotary embedding doubled",
        LLAMA,
        'base = config.rope_parameters["rope_theta"]',
        'base = 2 * config.rope_parameters["rope_theta"]',
    ),
    (
        "llama: rotation the other way round",
        LLAMA,
        "return torch.cat((-x2, x1), dim=-1)",
        "return torch.cat((x2, -x1), dim=-1)",
    ),
    (
        "llama: rotary pairs interleaved",
        LLAMA,
        "emb = torch.cat((freqs, freqs), dim=-1)",
        "emb = freqs.repeat_interleave(2, dim=-1)",
    ),
    ("llama: keys are not rotated", LLAMA, "k_embed = (k * cos) + (rotate_half(k) * sin)", "k_embed = k"),
    (
        "llama: angles in half precision",
        LLAMA,
        "freqs = position_ids[..., None].float() *",
        "freqs = position_ids[..., None].to(torch.bfloat16).float() *",
    ),
    ("llama: attention without its scale", LLAMA, "self.scaling = self.head_dim**-0.5", "self.scaling = 1.0"),
    (
        "llama: positions begin at one",
        LLAMA,
        "position_ids = position_ids.unsqueeze(0)\n",
        "position_ids = position_ids.unsqueeze(0) + 1\n",
    ),
    (
        "llama: positions of decoding begin again",
        LLAMA,
        "past_seen_tokens = past_key_values.get_seq_length() if past_key_values is not None else 0",
        "past_seen_tokens = 0",
    ),
    (
        "llama: gate and up projection swapped",
        LLAMA,
        "self.act_fn(self.gate_proj(x)) * self.up_proj(x)",
        "self.act_fn(self.up_proj(x)) * self.gate_proj(x)",
    ),
    (
        "llama: second norm of a layer dropped",
        LLAMA,
        "        hidden_states = self.post_attention_layernorm(hidden_states)\n",
        "",
    ),
    ("llama: last norm dropped", LLAMA, "        hidden_states = self.norm(hidden_states)\n", ""),
    (
        "llama: last layer skipped",
        LLAMA,
        "self.layers[: self.config.num_hidden_layers]:",
        "self.layers[: self.config.num_hidden_layers - 1]:",
    ),
    (
        "llama: residual taken after the norm",
        LLAMA,
        "        residual = hidden_states\n        hidden_states = self.input_layernorm(hidden_states)\n",
        "        hidden_states = self.input_layernorm(hidden_states)\n        residual = hidden_states\n",
    ),
    (
        "qwen2: bias of the values dropped",
        QWEN2,
        "value_states = self.v_proj(hidden_states)",
        "value_states = (self.v_proj(hidden_states) - self.v_proj.bias)",
    ),
    (
        "clip: class token behind the patches",
        CLIP,
        "torch.cat([class_embeds, patch_embeds], dim=1)",
        "torch.cat([patch_embeds, class_embeds], dim=1)",
    ),
    (
        "clip: patches in column order",
        CLIP,
        "patch_embeds = patch_embeds.flatten(2).transpose(1, 2)",
        "patch_embeds = patch_embeds.transpose(2, 3).flatten(2).transpose(1, 2)",
    ),
    (
        "clip: embeddings of positions dropped",
        CLIP,
        "            embeddings = embeddings + self.position_embedding(self.position_ids)\n",
        "            pass\n",
    ),
    (
        "clip: epsilon of the layer norms",
        CLIP,
        "self.layer_norm1 = nn.LayerNorm(self.embed_dim, eps=config.layer_norm_eps)",
        "self.layer_norm1 = nn.LayerNorm(self.embed_dim, eps=100 * config.layer_norm_eps)",
    ),
    ("clip: causal attention", CLIP, "self.is_causal = False", "self.is_causal = True"),
    (
        "clip: first norm of the tower dropped",
        CLIP,
        "        hidden_states = self.pre_layrnorm(hidden_states)\n",
        "",
    ),
    (
        "clip: attention scaled by the whole width",
        CLIP,
        "self.scale = self.head_dim**-0.5",
        "self.scale = self.embed_dim**-0.5",
    ),
    (
        "quick GELU is the exact one",
        ACTIVATIONS,
        "return input * torch.sigmoid(1.702 * input)",
        "return nn.functional.gelu(input)",
    ),
    ("quick GELU's factor is 1.7", ACTIVATIONS, "torch.sigmoid(1.702 * input)", "torch.sigmoid(1.7 * input)"),
    (
        "GELU by tanh",
        ACTIVATIONS,
        "            self.act = nn.functional.gelu\n",
        '            self.act = lambda x: nn.functional.gelu(x, approximate="tanh")\n',
    ),
    ("SiLU is GELU", ACTIVATIONS, "return nn.functional.silu(input)", "return nn.functional.gelu(input)"),
    (
        "llava: features of the layer before",
        LLAVA,
        "selected_image_feature = image_outputs.hidden_states[vision_feature_layer]",
        "selected_image_feature = image_outputs.hidden_states[vision_feature_layer - 1]",
    ),
    (
        "llava: the last patch is cut off, not the class token",
        LLAVA,
        "selected_image_feature = selected_image_feature[:, 1:]",
        "selected_image_feature = selected_image_feature[:, :-1]",
    ),
    (
        "llava: projector without its activation",
        LLAVA,
        "        hidden_states = self.act(hidden_states)\n",
        "",
    ),
    (
        "llava: image features in reverse order",
        LLAVA,
        "inputs_embeds.masked_scatter(special_image_mask, image_features)",
        "inputs_embeds.masked_scatter(special_image_mask, image_features.flip(1))",
    ),
    (
        "llava-next: newline embeddings before each row",
        NEXT,
        "image_feature = image_feature.flatten(1, 2).transpose(0, 1)\n",
        "image_feature = image_feature.roll(1, -1).flatten(1, 2).transpose(0, 1)\n",
    ),
    (
        "llava-next: tiles before the overview",
        NEXT,
        "torch.cat((base_image_feature, image_feature), dim=0)",
        "torch.cat((image_feature, base_image_feature), dim=0)",
    ),
    (
        "llava-next: tiles in column order",
        NEXT,
        "image_feature = image_feature.permute(4, 0, 2, 1, 3).contiguous()",
        "image_feature = image_feature.transpose(0, 1).reshape(num_patch_height, num_patch_width, height, width, -1)"
        ".permute(4, 0, 2, 1, 3).contiguous()",
    ),
    (
        "llava-next: padding rounded up",
        NEXT,
        "padding = (current_height - new_height) // 2",
        "padding = -(-(current_height - new_height) // 2)",
    ),
    (
        "llava-next: wide images keep their padding",
        NEXT,
        "unpadded_tensor = tensor[:, padding : current_height - padding, :]",
        "unpadded_tensor = tensor",
    ),
    (
        "llava-next: tiles pasted at the top left",
        NEXT_IMAGES,
        "return (paste_y, paste_y + r_y), (paste_x, paste_x + r_x)",
        "return (0, 2 * paste_y + r_y), (0, 2 * paste_x + r_x)",
    ),
    (
        "llava-next: tiles resized bilinearly",
        NEXT_IMAGES,
        "resized_image = self._resize_for_patching(image, best_resolution, resample=resample)",
        "resized_image = self._resize_for_patching(image, best_resolution, resample=PILImageResampling.BILINEAR)",
    ),
    (
        "llava-next: the grid that wastes most",
        IMAGES,
        "wasted_resolution < min_wasted_resolution",
        "wasted_resolution > min_wasted_resolution",
    ),
    (
        "llava-next: sizes of tiles rounded down",
        IMAGES,
        "min(math.ceil(original_height * scale_w), target_height)",
        "min(math.floor(original_height * scale_w), target_height)",
    ),
    (
        "images: columns before rows",
        TRANSFORMS,
        "    for i in range(0, height, patch_h):\n        for j in range(0, width, patch_w):\n",
        "    for j in range(0, width, patch_w):\n        for i in range(0, height, patch_h):\n",
    ),
    (
        "images: bilinear for bicubic",
        PIL,
        "        return np_resize(\n            image,\n            size=new_size,\n            resample=resample,",
        "        return np_resize(\n            image,\n            size=new_size,\n            resample=PILImageResampling.BILINEAR,",
    ),
    (
        "images: not normalised by the deviation",
        TRANSFORMS,
        "image = ((image.T - mean) / std).T",
        "image = (image.T - mean).T",
    ),
    (
        "images: normalised before they are scaled",
        PIL,
        "            if do_rescale:\n                image = self.rescale(image, rescale_factor)\n"
        "            if do_normalize:\n                image = self.normalize(image, image_mean, image_std)\n",
        "            if do_normalize:\n                image = self.normalize(image, image_mean, image_std)\n"
        "            if do_rescale:\n                image = self.rescale(image, rescale_factor)\n",
    ),
    (
        "instructblip: last norm of the tower dropped",
        BLIP,
        "        last_hidden_state = self.post_layernorm(last_hidden_state)\n",
        "",
    ),
    (
        "instructblip: keys and values swapped in the tower",
        BLIP,
        "mixed_qkv[0], mixed_qkv[1], mixed_qkv[2]",
        "mixed_qkv[0], mixed_qkv[2], mixed_qkv[1]",
    ),
    (
        "instructblip: Q-Former reads no instruction",
        BLIP,
        "        qformer_attention_mask = torch.cat([query_attention_mask, qformer_attention_mask], dim=1)\n"
        "        qformer_outputs = self.qformer(\n",
        "        qformer_attention_mask = torch.cat([query_attention_mask, 0 * qformer_attention_mask], dim=1)\n"
        "        qformer_outputs = self.qformer(\n",
    ),
    (
        "instructblip: queries through the text's feed-forward",
        BLIP,
        "intermediate_output = self.intermediate_query(attention_output)",
        "intermediate_output = self.intermediate(attention_output)",
    ),
    (
        "instructblip: cross-attention in the other layers",
        BLIP,
        "if layer_idx % config.cross_attention_frequency == 0:",
        "if layer_idx % config.cross_attention_frequency == 1:",
    ),
    (
        "instructblip: Q-Former without positions",
        BLIP,
        "            embeddings = embeddings + position_embeddings\n",
        "",
    ),
    (
        "internvl: first layer scale dropped",
        INTERN,
        "attention_output = self.lambda_1 * attention_output",
        "attention_output = attention_output",
    ),
    (
        "sdpa: never causal",
        SDPA,
        "is_causal = q_length > 1 and attention_mask is None and is_causal",
        "is_causal = False",
    ),
    ("sdpa: scale left to torch, twice", SDPA, "scale=scaling,", "scale=scaling and scaling * scaling,"),
    (
        "sdpa: heads and rows not put back",
        SDPA,
        "attn_output = attn_output.transpose(1, 2).contiguous()",
        "attn_output = attn_output.contiguous()",
    ),
    ("masks: a token does not see itself", MASKS, "return kv_idx <= q_idx\n", "return kv_idx < q_idx\n"),
    (
        "masks: padding is forgotten beside causality",
        MASKS,
        "if (q_length == 1 or kv_length == q_length) and (padding_mask is None or fast_all(padding_mask)):",
        "if q_length == 1 or kv_length == q_length:",
    ),
    (
        "cache: new keys before old ones",
        CACHE,
        "        self.keys = torch.cat([self.keys, key_states], dim=-2)\n        self.values",
        "        self.keys = torch.cat([key_states, self.keys], dim=-2)\n        self.values",
    ),
    (
        "cache: one token shorter than it is",
        CACHE,
        "            return 0\n        return self.keys.shape[-2]\n\n    def get_max_length(self) -> int:\n"
        '        """Returns the maximum sequence length of the cache object. DynamicLayer does',
        "            return 0\n        return self.keys.shape[-2] - 1\n\n    def get_max_length(self) -> int:\n"
        '        """Returns the maximum sequence length of the cache object. DynamicLayer does',
    ),
    (
        "generation: the closing token does not stop",
        STOPPING,
        "self.eos_token_id).any(dim=-1)",
        "self.eos_token_id).all(dim=-1) & False",
    ),
    (
        "generation: positions of new tokens one too far",
        GENERATION,
        "                + position_ids[..., -1:]\n                + 1\n",
        "                + position_ids[..., -1:]\n                + 2\n",
    ),
    (
        "generation: the second best token",
        GENERATION,
        "next_tokens = torch.argmax(next_token_scores, dim=-1)",
        "next_tokens = next_token_scores.topk(2, dim=-1).indices[..., 1]",
    ),
    (
        "generation: new tokens are masked",
        GENERATION,
        "[attention_mask, attention_mask.new_ones((attention_mask.shape[0], num_new_tokens))], dim=-1",
        "[attention_mask, attention_mask.new_zeros((attention_mask.shape[0], num_new_tokens))], dim=-1",
    ),
]
