"""Pictures drawn in code: shapes, a canvas with a camera, four scenes and their defects."""
