"""MetaWorld's scene files turned into the models that are simulated and drawn. Host only.

The files come from the installed `metaworld` package, found by path; its Python is never
imported and nothing of it is copied. The physics model is thin: MJX(jax) has no pair of cylinder
and box and cannot afford the colliding meshes, so the puck becomes a box, the table top a plane,
and of the hand only the finger pads collide. Measured against MetaWorld's own class in
`tests/test_envs_parity.py`.
"""

import importlib.util
import pathlib
from collections.abc import Callable, Mapping

import mujoco
import numpy as np

from envs_mjx.errors import EnvError

# Written by MetaWorld over every weld after compiling: anchor, relative position, relative
# quaternion and torque scale. The relative pose that the compiler stores pulls the hand away.
_WELD_DATA = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 5.0)
_HAND_DOWN = (1.0, 0.0, 1.0, 0.0)  # quaternion of the mocap body, never changed by an action

# Bits for contype/conaffinity: they make MuJoCo pair puck-pad, puck-table and pad-table and
# nothing else, and mix each pair's parameters by its own rules.
_HITS = 1
_CLAWS = ("rightclaw_it", "leftclaw_it")  # do not collide, but give the fingers their mass
_PADS = ("rightpad_geom", "leftpad_geom")

# Sensor name -> body whose origin it reports. Sites, because fusing static bodies drops names.
_BODY_FRAMES = {
    "hand": "hand",
    "right_claw": "rightclaw",
    "left_claw": "leftclaw",
    "right_pad": "rightpad",
    "left_pad": "leftpad",
    "object_pos": "obj",
}
_SITE_FRAMES = {"right_tip": "rightEndEffector", "left_tip": "leftEndEffector"}

SpecEdit = Callable[[mujoco.MjSpec], None]


def assets_path() -> pathlib.Path:
    """Return the folder of MetaWorld's MJCF files without importing MetaWorld."""
    found = importlib.util.find_spec("metaworld")
    if found is None or not found.submodule_search_locations:
        raise EnvError(
            "MetaWorld's scene files are missing: the package `metaworld` is not installed; "
            "install it with `pip install metaworld==3.0.0`"
        )
    return pathlib.Path(next(iter(found.submodule_search_locations))) / "assets" / "sawyer_xyz"


def load_spec(scene_file: str) -> mujoco.MjSpec:
    """Return MetaWorld's own scene `scene_file`, unchanged."""
    path = assets_path() / scene_file
    if not path.is_file():
        raise EnvError(f"no scene file {scene_file!r} in {path.parent}; install metaworld==3.0.0")
    return mujoco.MjSpec.from_file(str(path))


def build_physics_model(scene_file: str, edit: SpecEdit) -> mujoco.MjModel:
    """Compile the thin model that every backend simulates.

    Args:
      scene_file: name of the MJCF file in MetaWorld's folder.
      edit: a task's own additions (colliders, sensors), applied last.

    Returns:
      The model, with one named sensor for each quantity that a task reads.
    """
    spec = load_spec(scene_file)
    _thin_geoms(spec)
    for asset in (*spec.meshes, *spec.materials, *spec.textures):
        spec.delete(asset)
    _add_sensors(spec)
    spec.body("mocap").quat = _HAND_DOWN
    # 4 and 8 iterations: 2 lower the expert's success to 0.8, 1 gives NaN.
    spec.option.cone = mujoco.mjtCone.mjCONE_PYRAMIDAL
    spec.option.iterations, spec.option.ls_iterations = 4, 8
    spec.compiler.fusestatic = True  # 34 bodies become 13
    edit(spec)
    model = spec.compile()
    _set_welds(model)
    return model


def build_visual_model(scene_file: str, edit: SpecEdit) -> mujoco.MjModel:
    """Compile the whole scene with meshes and textures, for drawing states only.

    Its qpos has the layout of the physics model's, so a state's qpos can be copied over.
    """
    spec = load_spec(scene_file)
    edit(spec)
    model = spec.compile()
    _set_welds(model)
    return model


def sensor_slices(model: mujoco.MjModel) -> Mapping[str, slice]:
    """Return, by sensor name, where each reading lies in `sensordata`."""
    slices = {}
    for index in range(model.nsensor):
        start = int(model.sensor_adr[index])
        slices[model.sensor(index).name] = slice(start, start + int(model.sensor_dim[index]))
    return slices


def _thin_geoms(spec: mujoco.MjSpec) -> None:
    for geom in list(spec.geoms):
        if geom.name in _CLAWS:
            geom.contype, geom.conaffinity = 0, 0
        elif geom.name in _PADS:
            geom.contype, geom.conaffinity = _HITS, 0
        elif geom.name == "objGeom":
            geom.type = mujoco.mjtGeom.mjGEOM_BOX
            geom.size = (0.02, 0.02, 0.02)  # the cylinder's radius and half height, m
            geom.contype, geom.conaffinity = _HITS, _HITS
        else:
            spec.delete(geom)
            continue
        geom.material = ""
    # Contact parameters of MetaWorld's table box are MuJoCo's defaults, as are this plane's. It
    # has no edge: the table ends 0.4 m beyond any bound. The retaining wall is left out (its
    # inner face at y = 0.98 m stops a puck at 0.96 m, outside every default bound).
    spec.worldbody.add_geom(
        name="table",
        type=mujoco.mjtGeom.mjGEOM_PLANE,
        size=(1.0, 1.0, 0.1),
        contype=0,
        conaffinity=_HITS,
    )


def _add_sensors(spec: mujoco.MjSpec) -> None:
    sites = dict(_SITE_FRAMES)
    for name, body in _BODY_FRAMES.items():
        sites[name] = f"{name}_frame"
        spec.body(body).add_site(name=sites[name])
    for name, site in sites.items():
        _add_frame_sensor(spec, name, site, mujoco.mjtSensor.mjSENS_FRAMEPOS)
    frame = sites["object_pos"]
    _add_frame_sensor(spec, "object_quat", frame, mujoco.mjtSensor.mjSENS_FRAMEQUAT)


def _add_frame_sensor(spec: mujoco.MjSpec, name: str, site: str, kind: mujoco.mjtSensor) -> None:
    spec.add_sensor(name=name, type=kind, objtype=mujoco.mjtObj.mjOBJ_SITE, objname=site)


def _set_welds(model: mujoco.MjModel) -> None:
    welds = model.eq_type == mujoco.mjtEq.mjEQ_WELD
    model.eq_data[welds, : len(_WELD_DATA)] = np.array(_WELD_DATA)
