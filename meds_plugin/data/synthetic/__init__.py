"""`data=synthetic`: shapes, a canvas with a camera, four products and their defects."""
