"""Transformers as they are published, of few features: torchvision's at full depth, those of `transformers` with two
blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from attention_models import GPT2, IMAGE, SMALL, WORDS, Encoder

TEXT = SMALL
GROUPED = SMALL | {"num_key_value_heads": 2}
PICTURE = {key: value for key, value in IMAGE.items() if key != "shape"}
HIERARCHY: dict[str, Any] = dict(hidden_sizes=[8, 16, 16, 16], depths=[1, 1, 1, 1])
WINDOWS: dict[str, Any] = dict(
    image_size=32, patch_size=2, embed_dim=16, depths=[2, 2], num_heads=[2, 4], window_size=4
)


class Called(nn.Module):
    """A network called by a keyword, and one of the tensors that it returns."""

    def __init__(self, network: nn.Module, keyword: str, output: str, constants: dict[str, Any]) -> None:
        super().__init__()
        self.network, self.keyword, self.output, self.constants = network, keyword, output, constants

    def forward(self, x: Tensor) -> Tensor:
        return self.network(**{self.keyword: x}, **self.constants)[self.output]


@dataclass(frozen=True)
class Case:
    """A network, the shape of its input, and whether that holds words."""

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    words: bool = False

    def module(self) -> nn.Module:
        torch.manual_seed(0)
        module = self.make().eval().requires_grad_(False)
        for value in module.parameters():
            value += 0.05 * torch.randn_like(value)
        return module

    def sample(self) -> Tensor:
        generator = torch.Generator().manual_seed(1)
        if self.words:
            return torch.randint(3, WORDS, self.shape, generator=generator)
        return torch.randn(self.shape, generator=generator)


def _torchvision(name: str, size: int) -> Case:
    def make() -> nn.Module:
        import torchvision.models as tv

        return tv.get_model(name, weights=None)

    return Case(make, (2, 3, size, size))


def _transformers(
    family: str, kind: str, output: str = "logits", *, keyword: str = "", shape: tuple[int, ...] = (2, 7),
    constants: dict[str, Any] | None = None, **config: Any,
) -> Case:  # fmt: skip
    def make() -> nn.Module:
        import transformers
        from transformers.models.whisper import modeling_whisper

        configuration = getattr(transformers, f"{family}Config")(**config)
        configuration.use_cache = False
        network = getattr(transformers, kind, None) or getattr(modeling_whisper, kind)
        named = keyword or {2: "input_ids", 3: "input_features", 4: "pixel_values"}[len(shape)]
        return Called(network(configuration), named, output, constants or {})

    return Case(make, shape, words=len(shape) == 2 and keyword in ("", "input_ids"))


_text = partial(_transformers, **TEXT)
_grouped = partial(_transformers, **GROUPED)
_picture = partial(_transformers, shape=(2, 3, 32, 32), **PICTURE)
_any_picture = partial(_transformers, shape=(2, 3, 32, 32))

CASES: dict[str, Case] = {
    "ViT-B/16 (torchvision)": _torchvision("vit_b_16", 224),
    "Swin-T (torchvision)": _torchvision("swin_t", 96),
    "Swin-V2-T (torchvision)": _torchvision("swin_v2_t", 96),
    "ConvNeXt-T (torchvision)": _torchvision("convnext_tiny", 96),
    "nn.TransformerEncoder": Case(Encoder, (2, 7), words=True),
    "BERT": _text("Bert", "BertForSequenceClassification"),
    "ALBERT": _text("Albert", "AlbertForSequenceClassification", embedding_size=16),
    "ELECTRA": _text("Electra", "ElectraForSequenceClassification", embedding_size=16),
    "DistilBERT": _transformers(
        "DistilBert", "DistilBertForSequenceClassification", dim=32, n_layers=2, n_heads=4, hidden_dim=48,
        vocab_size=WORDS),
    "RoBERTa": _text(
        "Roberta", "RobertaForSequenceClassification", constants={"position_ids": torch.arange(1, 8)[None]}),
    "DeBERTa v2": _text(
        "DebertaV2", "DebertaV2ForSequenceClassification", relative_attention=True, pos_att_type=["p2c", "c2p"]),
    "ModernBERT": _text("ModernBert", "ModernBertForSequenceClassification", cls_token_id=1, sep_token_id=2),
    "ConvBERT": _text("ConvBert", "ConvBertForSequenceClassification", embedding_size=32),
    "XLNet": _transformers(
        "XLNet", "XLNetForSequenceClassification", d_model=32, n_layer=2, n_head=4, d_inner=48, vocab_size=WORDS),
    "FNet": _transformers(
        "FNet", "FNetForSequenceClassification", hidden_size=32, num_hidden_layers=2, intermediate_size=48,
        vocab_size=WORDS),
    "T5, encoder": _transformers(
        "T5", "T5EncoderModel", "last_hidden_state", d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4,
        vocab_size=WORDS),
    "GPT-2": _transformers("GPT2", "GPT2LMHeadModel", **GPT2),
    "OPT": _transformers(
        "OPT", "OPTForCausalLM", hidden_size=32, num_hidden_layers=2, num_attention_heads=4, ffn_dim=48,
        vocab_size=WORDS, word_embed_proj_dim=32, pad_token_id=0),
    "BLOOM": _transformers("Bloom", "BloomForCausalLM", hidden_size=32, n_layer=2, n_head=4, vocab_size=WORDS),
    "GPT-NeoX": _text("GPTNeoX", "GPTNeoXForCausalLM"),
    "Llama": _grouped("Llama", "LlamaForCausalLM"),
    "Mistral": _grouped("Mistral", "MistralForCausalLM", sliding_window=3),
    "Mixtral": _grouped("Mixtral", "MixtralForCausalLM", num_local_experts=2),
    "Qwen3": _grouped("Qwen3", "Qwen3ForCausalLM", head_dim=8),
    "Gemma 2": _grouped("Gemma2", "Gemma2ForCausalLM", head_dim=8),
    "Phi-3": _grouped("Phi3", "Phi3ForCausalLM"),
    "Falcon": _transformers(
        "Falcon", "FalconForCausalLM", hidden_size=32, num_hidden_layers=2, num_attention_heads=4, vocab_size=WORDS),
    "Mamba": _transformers(
        "Mamba", "MambaForCausalLM", hidden_size=32, num_hidden_layers=2, vocab_size=WORDS, state_size=4),
    "ViT": _picture("ViT", "ViTForImageClassification"),
    "DeiT, distilled": _picture("DeiT", "DeiTForImageClassificationWithTeacher"),
    "BEiT": _picture("Beit", "BeitForImageClassification"),
    "DINOv2": _any_picture(
        "Dinov2", "Dinov2ForImageClassification", hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        mlp_ratio=2, image_size=32, patch_size=8),
    "CLIP, images": _picture(
        "CLIPVision", "CLIPVisionModelWithProjection", "image_embeds", projection_dim=16),
    "SigLIP, images": _picture("SiglipVision", "SiglipVisionModel", "pooler_output"),
    "Swin": _any_picture("Swin", "SwinForImageClassification", **WINDOWS),
    "Swin v2": _any_picture("Swinv2", "Swinv2ForImageClassification", **WINDOWS),
    "ConvNeXt": _any_picture("ConvNext", "ConvNextForImageClassification", **HIERARCHY),
    "ConvNeXt v2": _any_picture("ConvNextV2", "ConvNextV2ForImageClassification", **HIERARCHY),
    "PoolFormer": _any_picture("PoolFormer", "PoolFormerForImageClassification", **HIERARCHY),
    "SegFormer": _any_picture(
        "Segformer", "SegformerForImageClassification", num_encoder_blocks=2, depths=[1, 1], sr_ratios=[2, 1],
        hidden_sizes=[16, 32], num_attention_heads=[2, 4], patch_sizes=[7, 3], strides=[4, 2], mlp_ratios=[2, 2]),
    "Whisper, encoder": _transformers(
        "Whisper", "WhisperEncoder", "last_hidden_state", shape=(2, 8, 12), d_model=16, encoder_layers=2,
        encoder_attention_heads=4, encoder_ffn_dim=24, num_mel_bins=8, max_source_positions=6),
    "Wav2Vec2": _transformers(
        "Wav2Vec2", "Wav2Vec2ForSequenceClassification", keyword="input_values", shape=(2, 800), hidden_size=32,
        num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, conv_dim=[16, 16, 16], conv_stride=[5, 2, 2],
        conv_kernel=[10, 3, 3], num_feat_extract_layers=3, num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=4, vocab_size=WORDS, classifier_proj_size=16),
}  # fmt: skip
