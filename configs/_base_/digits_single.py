# scikit-learn's handwritten digits, one class an image, without a download. No mirroring: digits are not symmetric.
scenario = dict(
    dataset=dict(type="digits_single"),
    class_order="as_given",
)
train_transform = dict(cutout=0.0, randaugment=False, crop="padded", padding=2)
