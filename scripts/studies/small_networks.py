"""One small network of each family at least, which TensorFlow builds in a second."""

from __future__ import annotations

from slimport import networks
from slimport.networks.alexnet import AlexNetV2
from slimport.networks.cifarnet import CifarNet
from slimport.networks.deeplab import DeepLab
from slimport.networks.inception_resnet_v1 import InceptionResNetV1
from slimport.networks.inception_resnet_v2 import InceptionResNetV2
from slimport.networks.inception_v1 import InceptionV1
from slimport.networks.inception_v2 import InceptionV2
from slimport.networks.inception_v4 import InceptionV4
from slimport.networks.lenet import LeNet
from slimport.networks.mobilenet_v1 import MobileNetV1
from slimport.networks.mobilenet_v2 import MobileNetV2
from slimport.networks.mobilenet_v3 import MobileNetV3
from slimport.networks.nasnet import NASNet
from slimport.networks.overfeat import OverFeat
from slimport.networks.pnasnet import PNASNet
from slimport.networks.xception import Xception

# Two blocks, every kind of unit: projecting, identity, identity with a stride.
SMALL = networks.ResNetV2(
    (networks.resnet_v2_block("block1", 4, 2, 2), networks.resnet_v2_block("block2", 8, 3, 1)), num_classes=7
)
SMALL_V1 = networks.ResNetV1(
    (networks.resnet_v1_block("block1", 4, 2, 2), networks.resnet_v1_block("block2", 8, 3, 1)), 7
)
# One small network of each family at least.
SMALL_NETWORKS: dict[str, networks.Network] = {
    "resnet_v1": SMALL_V1,
    "resnet_v1_beta": networks.ResNetV1Beta(SMALL_V1.blocks, 7, root_depths=(4, 5, 6)),
    "resnet_v1_lite": networks.ResNetV1Beta(
        (networks.lite_block("block1", 8, 2, 2), networks.lite_block("block2", 12, 3, 1)),
        root_depths=(4, 5, 6),
        lite=True,
    ),
    "resnet_v2": SMALL,
    "inception_v3": networks.InceptionV3(7, depth_multiplier=0.05, min_depth=4),
    "inception_v1": InceptionV1(7, depth_multiplier=0.03, min_depth=4),
    "inception_v2": InceptionV2(7, depth_multiplier=0.05, min_depth=4),
    "inception_v4": InceptionV4(7, depth_multiplier=0.02, min_depth=4, repeats=(1, 2, 1), aux_kernel_size=(3, 3)),
    "inception_resnet_v1": InceptionResNetV1(
        7, depth_multiplier=0.05, min_depth=4, repeats=(1, 2, 1), bottleneck_layer_size=6
    ),
    "inception_resnet_v2": InceptionResNetV2(
        7, depth_multiplier=0.03, min_depth=4, repeats=(1, 2, 1), aux_kernel_size=(3, 3)
    ),
    "vgg": networks.VGG((networks.ConvBlock(4, 1), networks.ConvBlock(6, 2)), 7, fc_depths=(12, 10)),
    "alexnet": AlexNetV2(7, depths=(4, 5, 6, 7, 8), fc_depths=(12, 10)),
    "overfeat": OverFeat(7, depths=(4, 5, 6, 7, 8), fc_depths=(12, 10)),
    "cifarnet": CifarNet(7, depths=(10, 12, 9, 8)),
    "lenet": LeNet(7, depths=(4, 6, 9)),
    "mobilenet_v1": MobileNetV1(7, depth_multiplier=0.05, min_depth=4),
    "mobilenet_v2": MobileNetV2(7, depth_multiplier=0.1, min_depth=4, divisible_by=4),
    "mobilenet_v3": MobileNetV3(7, variant="small", depth_multiplier=0.1, min_depth=4, divisible_by=4),
    "nasnet": NASNet(3, 3, 7, stem="cifar", stem_multiplier=3.0, aux_kernel_size=(1, 1)),
    "pnasnet": PNASNet(3, 4, 7, aux_kernel_size=(1, 1)),
    "xception": Xception((4, 6, 8), 2, 7, exit_depths=(6, 8, 9, 10, 11, 12), root_depths=(3, 5)),
    "deeplab": DeepLab(
        MobileNetV2(
            None, 3, 0.1, min_depth=4, divisible_by=4, finegrain_classification_mode=True, final_endpoint="layer_18"
        ),
        7,
        depth=6,
        decoder_depth=5,
    ),
}
