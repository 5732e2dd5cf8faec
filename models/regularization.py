"""L2 on what slim decays, for any way of training: `train_seg.py`, plain `model.fit`, or a loop of one's own."""

import keras


def add_weight_decay(model: keras.Model, rate: float) -> None:
    """Coupled L2 on convolution kernels, in TensorFlow 1's sense: `rate` / 2 · the sum of squares joins the loss.

        net = resnet_v2_50(num_classes=10)
        add_weight_decay(net, 1e-4)
        net.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        net.fit(images, labels)                  # the loss it shows and lowers has the L2 in it

    `keras.Model.fit` adds it by itself; a loop of one's own adds `sum(model.losses)`. slim decays `weights` (and not
    biases, gamma, beta or depthwise kernels) with `l2_regularizer(rate)`, which is `rate * tf.nn.l2_loss(weights)`:
    `keras.regularizers.L2(rate)` would be twice as much.

    Args:
        model: a network, or any Keras model that holds one; of its variables those that learn now.
        rate: 0 or more; 1e-4 in slim's `resnet_arg_scope`, 4e-5 in its MobileNet v2. A second call replaces the first,
            and 0 takes the decay away. A `.keras` file does not keep it.

    Raises:
        ValueError: a negative rate.
    """
    if rate < 0:
        raise ValueError(f"a weight decay is 0 or more. Received: {rate}")
    for variable in model.trainable_variables:
        if variable.name == "weights":
            variable.regularizer = keras.regularizers.L2(rate / 2) if rate else None
