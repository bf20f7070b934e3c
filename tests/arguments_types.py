"""What a type checker knows of the ports' arguments: mypy reads this, and an `ignore` without an error is one."""

from slimport.keras import resnet_v2_50 as keras_resnet
from slimport.pytorch import inception_v3, resnet_v2_50, vgg_16

resnet_v2_50(num_classes=10, output_stride=16)
vgg_16(10, fc_conv_padding="SAME")
inception_v3(10, create_aux_logits=False)
keras_resnet(10)

resnet_v2_50(num_clases=10)  # type: ignore[call-arg]
keras_resnet(num_clases=10)  # type: ignore[call-arg]
vgg_16(output_stride=8)  # type: ignore[call-arg]
inception_v3(depth_multiplier="half")  # type: ignore[arg-type]
