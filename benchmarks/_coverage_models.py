"""The networks of the coverage benchmark: what they are called, how they are built, what they are called with.

All weights are random and nothing is downloaded. `python benchmarks/_coverage_models.py` makes the timm list anew: of each
module of `timm.list_modules()` the variant with the fewest parameters, but for those named `test_…` (toys of timm's own tests).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

# Millions of parameters of each, by which the benchmark goes from small to large. Made with timm 1.0.31; 98 modules.
TIMM = {
    "beit_base_patch16_224": 86.5,  # beit
    "halonet_h1": 8.1,  # byoanet
    "mobileone_s1": 4.8,  # byobnet
    "cait_xxs24_224": 12.0,  # cait
    "coat_tiny": 5.5,  # coat
    "convit_tiny": 5.7,  # convit
    "convmixer_768_32": 21.1,  # convmixer
    "convnext_zepto_rms": 2.2,  # convnext
    "cpubone_nano": 6.5,  # cpubone
    "crossvit_tiny_240": 7.0,  # crossvit
    "csatv2": 11.1,  # csatv2
    "cs3darknet_focus_s": 3.3,  # cspnet
    "cspnext_tiny": 2.7,  # cspnext
    "davit_tiny": 28.4,  # davit
    "deepseek_vit_412m": 411.8,  # deepseek_vit
    "deit_tiny_patch16_224": 5.7,  # deit
    "densenet121": 8.0,  # densenet
    "dla46x_c": 1.1,  # dla
    "dpn48b": 9.1,  # dpn
    "edgenext_xx_small": 1.3,  # edgenext
    "efficientformer_l1": 12.3,  # efficientformer
    "efficientformerv2_s0": 3.6,  # efficientformer_v2
    "mobilenetv2_035": 1.7,  # efficientnet
    "efficientvim_m1": 6.7,  # efficientvim
    "efficientvit_b0": 3.4,  # efficientvit_mit
    "efficientvit_m0": 2.3,  # efficientvit_msra
    "vit_tiny_patch16_dinov3_qkvb": 5.5,  # eva
    "fasternet_t0": 3.9,  # fasternet
    "fastvit_t8": 4.0,  # fastvit
    "focalnet_tiny_srf": 28.4,  # focalnet
    "gcvit_xxtiny": 12.0,  # gcvit
    "gemma4_vit_167m": 167.4,  # gemma4_vit
    "ghostnet_050": 2.6,  # ghostnet
    "hardcorenas_b": 5.2,  # hardcorenas
    "hgnetv2_b0": 6.0,  # hgnet
    "hiera_tiny_224": 27.9,  # hiera
    "sam2_hiera_tiny": 26.9,  # hieradet_sam2
    "hrnet_w18_small": 13.2,  # hrnet
    "iformer_t": 2.9,  # iformer
    "inception_next_atto": 4.2,  # inception_next
    "inception_resnet_v2": 55.8,  # inception_resnet_v2
    "inception_v3": 23.8,  # inception_v3
    "inception_v4": 42.7,  # inception_v4
    "lcnetv2_small": 4.1,  # lcnetv2
    "levit_128s": 7.8,  # levit
    "lowformer_b0": 14.1,  # lowformer
    "mambaout_femto": 7.3,  # mambaout
    "maxvit_pico_rw_256": 7.5,  # maxxvit
    "poolformerv2_s12": 11.9,  # metaformer
    "gmlp_ti16_224": 5.9,  # mlp_mixer
    "mobilenetv3_small_050": 1.6,  # mobilenetv3
    "mobilenetv5_base": 82.6,  # mobilenetv5
    "mobilevit_xxs": 1.3,  # mobilevit
    "mvitv2_tiny": 24.2,  # mvitv2
    "naflexvit_base_patch16_parfac_gap": 86.5,  # naflexvit
    "nasnetalarge": 88.8,  # nasnet
    "nest_tiny": 17.1,  # nest
    "nextvit_small": 31.8,  # nextvit
    "nf_regnet_b0": 8.8,  # nfnet
    "pit_ti_224": 4.8,  # pit
    "pnasnet5large": 86.1,  # pnasnet
    "pvt_v2_b0": 3.7,  # pvt_v2
    "qwen3_vit_88m": 87.4,  # qwen3_vit
    "rdnet_tiny": 23.9,  # rdnet
    "regnetx_002": 2.7,  # regnet
    "repghostnet_050": 2.3,  # repghost
    "repvit_m1": 5.5,  # repvit
    "res2next50": 24.7,  # res2net
    "resnest14d": 10.6,  # resnest
    "resnet10t": 5.4,  # resnet
    "resnetv2_18": 11.7,  # resnetv2
    "rexnet_100": 4.8,  # rexnet
    "selecsls42": 30.4,  # selecsls
    "legacy_seresnet18": 11.8,  # senet
    "sequencer2d_s": 27.7,  # sequencer
    "shvit_s1": 6.3,  # shvit
    "skresnet18": 12.0,  # sknet
    "starnet_s050": 0.5,  # starnet
    "swiftformer_xs": 3.5,  # swiftformer
    "swin_tiny_patch4_window7_224": 28.3,  # swin_transformer
    "swinv2_tiny_window16_256": 28.3,  # swin_transformer_v2
    "swinv2_cr_tiny_224": 28.3,  # swin_transformer_v2_cr
    "tiny_vit_5m_224": 12.1,  # tiny_vit
    "tnt_s_legacy_patch16_224": 23.8,  # tnt
    "tresnet_m": 31.4,  # tresnet
    "twins_svt_small": 24.1,  # twins
    "vgg11": 132.9,  # vgg
    "visformer_tiny": 10.3,  # visformer
    "vit_tiny_patch16_224": 5.7,  # vision_transformer
    "vit_tiny_r_s16_p8_224": 6.3,  # vision_transformer_hybrid
    "vit_srelpos_small_patch16_224": 22.0,  # vision_transformer_relpos
    "samvit_base_patch16_224": 86.5,  # vision_transformer_sam
    "vitamin_small_224": 22.2,  # vitamin
    "volo_d1_224": 26.6,  # volo
    "ese_vovnet19b_slim_dw": 1.9,  # vovnet
    "legacy_xception": 22.9,  # xception
    "xception41p": 26.9,  # xception_aligned
    "xcit_nano_12_p8_224": 3.0,  # xcit
}
# Where the default is too large for a benchmark on one thread: fewer of the same blocks, or smaller images.
TIMM_OPTIONS: dict[str, dict[str, Any]] = {
    "deepseek_vit_412m": {"img_size": 224, "depth": 6},
    "gemma4_vit_167m": {"img_size": 192, "depth": 8},
    "qwen3_vit_88m": {"img_size": 256},
}
TIMM_SIZES = {
    "deepseek_vit_412m": 224,
    "gemma4_vit_167m": 192,
    "qwen3_vit_88m": 256,
    "sam2_hiera_tiny": 224,
    "csatv2": 256,
    "naflexvit_base_patch16_parfac_gap": 224,
}
CLASSIFIERS = {
    "mnasnet0_5": 2.2,
    "shufflenet_v2_x0_5": 1.4,
    "squeezenet1_1": 1.2,
    "mobilenet_v3_small": 2.5,
    "mobilenet_v2": 3.5,
    "regnet_y_400mf": 4.3,
    "efficientnet_b0": 5.3,
    "densenet121": 8.0,
    "resnet18": 11.7,
    "googlenet": 6.6,
    "efficientnet_v2_s": 21.5,
    "inception_v3": 23.8,
    "resnext50_32x4d": 25.0,
    "resnet50": 25.6,
    "swin_t": 28.3,
    "swin_v2_t": 28.4,
    "convnext_tiny": 28.6,
    "maxvit_t": 30.9,
    "alexnet": 61.1,
    "vit_b_16": 86.6,
    "vgg11_bn": 132.9,
}
SEGMENTATION = {"lraspp_mobilenet_v3_large": 3.2, "deeplabv3_mobilenet_v3_large": 11.0, "fcn_resnet50": 33.0}
DETECTORS = {
    "ssdlite320_mobilenet_v3_large": 3.4,
    "fasterrcnn_mobilenet_v3_large_320_fpn": 19.4,
    "fcos_resnet50_fpn": 32.3,
    "retinanet_resnet50_fpn": 34.1,
    "ssd300_vgg16": 35.6,
    "maskrcnn_resnet50_fpn": 44.5,
}
TRANSFORMERS = {
    "whisper_encoder": 8.3,
    "segformer": 3.7,
    "llama": 50.0,
    "swin": 28.3,
    "detr": 41.0,
    "t5_encoder": 35.3,
    "distilbert": 67.0,
    "vit": 85.8,
    "wav2vec2": 94.6,
    "bert": 109.5,
    "gpt2": 124.4,
}


@dataclass
class Case:
    """A network, the inputs of one call, and the layers whose outputs are the network's.

    Attributes:
        model: the network; of a detector, a module that calls what it computes before boxes are put together.
        inputs: of one call of `model`.
        heads: the layers whose outputs are the network's.
        detector: the whole detector, which takes a list of images.
        part: what `pj.capture` is told to take of the detector.
        images: of one call of the detector.
    """

    model: nn.Module
    inputs: tuple[Tensor, ...]
    heads: list[nn.Module]
    detector: nn.Module | None = None
    part: nn.Module | list[str] | None = None
    images: Any = None


def names() -> list[str]:
    """All names, from small to large."""
    families = {
        "timm": TIMM,
        "torchvision": CLASSIFIERS | SEGMENTATION | DETECTORS,
        "transformers": TRANSFORMERS,
    }
    sizes = {f"{family}/{name}": size for family, models in families.items() for name, size in models.items()}
    return sorted(sizes, key=lambda name: (sizes[name], name))


def build(name: str) -> Case:
    """Returns a network in evaluation mode with random weights, and inputs at batch 2."""
    torch.manual_seed(0)
    family, _, model = name.partition("/")
    case = {"timm": _timm, "torchvision": _torchvision, "transformers": _transformers}[family](model)
    case.model.eval()
    with torch.no_grad():
        for value in case.model.parameters():
            # Layer scales and gains that start at zero would hide whatever goes wrong in the branch behind them.
            if value.is_floating_point() and value.abs().max() < 1e-3:
                nn.init.normal_(value, std=0.1)
    return case


def _images(size: tuple[int, ...] | int) -> tuple[Tensor, ...]:
    return (torch.randn(2, 3, size, size) if isinstance(size, int) else torch.randn(2, *size),)


def _timm(name: str) -> Case:
    import timm

    model = timm.create_model(name, num_classes=1000, **TIMM_OPTIONS.get(name, {}))  # some have no classes by default
    heads = model.get_classifier()
    heads = list(heads) if isinstance(heads, tuple | list | nn.ModuleList) else [heads]
    return Case(model, _images(TIMM_SIZES.get(name, model.pretrained_cfg["input_size"])), heads)


def _torchvision(name: str) -> Case:
    from torchvision.models import get_model

    if name in DETECTORS:
        return _detector(name)
    if name in SEGMENTATION:
        model = get_model(name, weights=None, weights_backbone=None)
        classes = 21
    else:
        options = {"aux_logits": False, "init_weights": False} if name in ("googlenet", "inception_v3") else {}
        model = get_model(name, weights=None, **options)
        classes = 1000
    heads = [
        m
        for m in model.modules()
        if getattr(m, "out_features", None) == classes or getattr(m, "out_channels", None) == classes
    ]
    return Case(model, _images(299 if name == "inception_v3" else 224), heads)


def _detector(name: str) -> Case:
    from torchvision.models import get_model

    sizes = {"ssd300_vgg16": 300, "ssdlite320_mobilenet_v3_large": 320}
    options = {} if name in sizes else {"min_size": 256, "max_size": 256}
    detector = get_model(name, weights=None, weights_backbone=None, **options)
    inputs = _images(sizes.get(name, 256))
    single = hasattr(detector, "head")
    module = _SingleStage(detector) if single else _TwoStage(detector)
    part = ["backbone", "head"] if single else module
    return Case(module, inputs, _predictors(detector), detector.eval(), part, (list(inputs[0]),))


class _SingleStage(nn.Module):
    """What a single-stage detector computes from images before anchors and boxes: backbone, pyramid, heads."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = detector.backbone, detector.head

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Returns the heads' outputs."""
        return self.head(list(self.backbone(images).values()))


class _TwoStage(nn.Module):
    """What an R-CNN computes but for proposals and their boxes: backbone, pyramid, all heads.

    Regions of interest are cut from the pyramid channel by channel, so a pool of the same size stands in their place.
    """

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.backbone, self.rpn_head, self.roi_heads = detector.backbone, detector.rpn.head, detector.roi_heads

    def forward(self, images: Tensor) -> list[Tensor]:
        """Returns the outputs of the proposal head, the box head and, if there is one, the mask head."""
        features = list(self.backbone(images).values())
        scores, boxes = self.rpn_head(features)
        heads = self.roi_heads
        regions = functional.adaptive_max_pool2d(features[0], 7)
        found = [*scores, *boxes, *heads.box_predictor(heads.box_head(regions))]
        if heads.mask_head is not None:
            found.append(heads.mask_predictor(heads.mask_head(functional.adaptive_max_pool2d(features[0], 14))))
        return found


def _predictors(detector: nn.Module) -> list[nn.Module]:
    """The layers of a detector's heads whose outputs are classes, boxes or masks."""
    named = ("cls_logits", "bbox_pred", "bbox_reg", "bbox_ctrness", "cls_score", "mask_fcn_logits", "module_list")
    return [module for path, module in detector.named_modules() if path.rpartition(".")[2] in named]


def _tokens(words: int) -> tuple[Tensor, ...]:
    return (torch.randint(0, words, (2, 32)),)


def _transformers(name: str) -> Case:
    import transformers as hf

    sizes: dict[str, Any] = {
        "hidden_size": 512,
        "intermediate_size": 1376,
        "num_hidden_layers": 6,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
    }
    detr = {
        "use_timm_backbone": False,
        "use_pretrained_backbone": False,
        "backbone": None,
        "backbone_config": hf.ResNetConfig(out_features=["stage4"]),
    }
    # The class, its configuration (the default one but for Llama's size and what export forbids: caches), its inputs.
    cases: dict[str, tuple[Callable[..., nn.Module], Any, tuple[Tensor, ...]]] = {
        "bert": (hf.BertForSequenceClassification, hf.BertConfig(), _tokens(30522)),
        "distilbert": (hf.DistilBertForSequenceClassification, hf.DistilBertConfig(), _tokens(30522)),
        "gpt2": (hf.GPT2LMHeadModel, hf.GPT2Config(use_cache=False), _tokens(50257)),
        "llama": (hf.LlamaForCausalLM, hf.LlamaConfig(use_cache=False, **sizes), _tokens(32000)),
        "t5_encoder": (hf.T5ForTokenClassification, hf.T5Config(), _tokens(32128)),
        "whisper_encoder": (hf.WhisperForAudioClassification, hf.WhisperConfig(), (torch.randn(2, 80, 3000),)),
        "wav2vec2": (hf.Wav2Vec2ForSequenceClassification, hf.Wav2Vec2Config(), (torch.randn(2, 16000),)),
        "vit": (hf.ViTForImageClassification, hf.ViTConfig(), _images(224)),
        "swin": (hf.SwinForImageClassification, hf.SwinConfig(), _images(224)),
        "segformer": (hf.SegformerForSemanticSegmentation, hf.SegformerConfig(), _images(224)),
        "detr": (hf.DetrForObjectDetection, hf.DetrConfig(**detr), _images(224)),
    }
    make, config, inputs = cases[name]
    model = make(config)
    last = ("classifier", "lm_head", "class_labels_classifier", "bbox_predictor")
    heads = [module for path, module in model.named_modules() if path.rpartition(".")[2] in last]
    if name == "detr":
        module = _Boxes(model)
        return Case(module, inputs, heads, model.eval(), module, inputs)
    return Case(model, inputs, heads)


class _Boxes(nn.Module):
    """DETR's classes and boxes, without the hidden states that it returns as well (outputs keep their shape)."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Returns class scores and boxes."""
        found = self.detector(images)
        return found.logits, found.pred_boxes


def smallest_of_timm() -> None:
    """Prints the variant with the fewest parameters of each timm module."""
    import timm

    for module in timm.list_modules():
        sizes = []
        for name in timm.list_models(module=module):
            if not name.startswith("test_"):
                with torch.device("meta"):
                    model = timm.create_model(name)
                sizes.append((sum(value.numel() for value in model.parameters()), name))
        print(f'    "{min(sizes)[1]}": {min(sizes)[0] / 1e6:.1f},  # {module}', flush=True)


if __name__ == "__main__":
    smallest_of_timm()
