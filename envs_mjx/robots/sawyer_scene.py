"""MetaWorld's scene files turned into the models that are simulated and drawn. Host only.

The files come from the installed `metaworld` package, found by path; its Python is never
imported and nothing of it is copied. The physics model is thin: MJX(jax) has no pair of cylinder
and box and cannot afford the colliding meshes, so the puck becomes a box, the table top a plane,
and of the hand only the finger pads collide unless a task's `SceneParts` says otherwise. Measured
against MetaWorld's own class in `tests/envs_mjx/physics/test_parity.py`.
"""

import importlib.util
import pathlib

import mujoco
import numpy as np

from envs_mjx.errors import EnvError
from envs_mjx.physics.boxes import Box, mesh_boxes
from envs_mjx.physics.scene import PUCK_PARTS, SceneParts, SpecEdit, add_frame_sensor

# Written by MetaWorld over every weld after compiling: anchor, relative position, relative
# quaternion and torque scale. The relative pose that the compiler stores pulls the hand away.
_WELD_DATA = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 5.0)
_HAND_DOWN = (1.0, 0.0, 1.0, 0.0)  # quaternion of the mocap body, never changed by an action

# Bits for contype/conaffinity: they make MuJoCo pair object-finger, object-table and finger-table
# (1), object-goal, object-hand and hand-goal (2) and nothing else, and mix each pair's parameters
# by its own rules.
_HITS, _BLOCKS = 1, 2
_CLAWS = ("rightclaw_it", "leftclaw_it")  # where they do not collide, they still have mass
_PADS = ("rightpad_geom", "leftpad_geom")

# Sensor name -> body whose origin it reports. Sites, because fusing static bodies drops names.
_BODY_FRAMES = {
    "hand": "hand",
    "right_claw": "rightclaw",
    "left_claw": "leftclaw",
    "right_pad": "rightpad",
    "left_pad": "leftpad",
}
_SITE_FRAMES = {"right_tip": "rightEndEffector", "left_tip": "leftEndEffector"}


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


def build_physics_model(
    scene_file: str, edit: SpecEdit, parts: SceneParts = PUCK_PARTS
) -> mujoco.MjModel:
    """Compile the thin model that every backend simulates.

    Args:
      scene_file: name of the MJCF file in MetaWorld's folder.
      edit: a task's own additions (colliders, sensors), applied last.
      parts: what of the file takes part.

    Returns:
      The model, with one named sensor for each quantity that a task reads.
    """
    spec = load_spec(scene_file)
    _move_goal_body(spec, parts)
    _thin_geoms(spec, parts)
    for asset in (*spec.meshes, *spec.materials, *spec.textures):
        spec.delete(asset)
    _add_sensors(spec, parts.object_body)
    spec.body("mocap").quat = _HAND_DOWN
    # 4 and 8 iterations: 2 lower the expert's success to 0.8, 1 gives NaN.
    spec.option.cone = parts.cone
    spec.option.iterations, spec.option.ls_iterations = 4, 8
    if parts.max_contacts is not None:
        spec.add_numeric(name="max_contact_points", data=[parts.max_contacts], size=1)
    spec.compiler.fusestatic = True  # 34 bodies become 13
    edit(spec)
    model = spec.compile()
    _set_welds(model)
    return model


def build_visual_model(
    scene_file: str, edit: SpecEdit, parts: SceneParts = PUCK_PARTS
) -> mujoco.MjModel:
    """Compile the whole scene with meshes and textures, for drawing states only.

    Its qpos and mocap bodies have the layout of the physics model's, so a state's can be copied.
    """
    spec = load_spec(scene_file)
    _move_goal_body(spec, parts)
    edit(spec)
    model = spec.compile()
    _set_welds(model)
    return model


def _move_goal_body(spec: mujoco.MjSpec, parts: SceneParts) -> None:
    """Let the goal's body be placed per environment: every one shares the model."""
    if parts.goal_body is not None:
        spec.body(parts.goal_body).mocap = True


def _thin_geoms(spec: mujoco.MjSpec, parts: SceneParts) -> None:
    boxes = mesh_boxes(spec, parts.boxed_meshes) if parts.boxed_meshes else {}
    for geom in list(spec.geoms):
        if geom.name in _CLAWS:
            geom.contype, geom.conaffinity = (_HITS if parts.claws_collide else 0), 0
        elif geom.name in _PADS:
            geom.contype, geom.conaffinity = _HITS, 0
        elif geom.name == "objGeom":
            if geom.type == mujoco.mjtGeom.mjGEOM_CYLINDER:
                geom.type = mujoco.mjtGeom.mjGEOM_BOX
                geom.size = (0.02, 0.02, 0.02)  # the cylinder's radius and half height, m
            geom.contype, geom.conaffinity = _HITS | _BLOCKS, _HITS
        elif geom.meshname in boxes:
            _become_box(geom, boxes[geom.meshname], parts.goal_body)
        else:
            spec.delete(geom)
            continue
        geom.material = ""
    # Contact parameters of MetaWorld's table box are MuJoCo's defaults, as are this plane's. It
    # has no edge: the table ends 0.4 m beyond any bound. The retaining wall is left out: its
    # inner face at y = 0.98 m would stop a puck at 0.96 m, outside its default bound, but a ball
    # at 0.954 m, inside its own, so that nothing could fail over that edge.
    spec.worldbody.add_geom(
        name="table",
        type=mujoco.mjtGeom.mjGEOM_PLANE,
        size=(1.0, 1.0, 0.1),
        contype=0,
        conaffinity=_HITS,
    )


def _become_box(geom: mujoco.MjsGeom, box: Box, goal_body: str | None) -> None:
    """Turn a mesh collider into `box`; its contact parameters stay.

    The hand's meets the object and the goal; the goal's meet those two. The fingers pass through
    the goal, which changes no golden episode and spares MJX 16 pairs of boxes.
    """
    stands_still = goal_body is not None and _belongs_to(geom.parent, goal_body)
    geom.name = f"{geom.meshname}_box"
    geom.meshname = ""
    geom.type = mujoco.mjtGeom.mjGEOM_BOX
    geom.pos, geom.quat, geom.size = box
    geom.density = 0.0  # the bodies' own inertias are given
    geom.contype, geom.conaffinity = (0 if stands_still else _BLOCKS), _BLOCKS


def _belongs_to(body: mujoco.MjsBody, name: str) -> bool:
    while body is not None and body.name != "world":
        if body.name == name:
            return True
        body = body.parent
    return False


def _add_sensors(spec: mujoco.MjSpec, object_body: str) -> None:
    sites = dict(_SITE_FRAMES)
    for name, body in {**_BODY_FRAMES, "object_pos": object_body}.items():
        sites[name] = f"{name}_frame"
        spec.body(body).add_site(name=sites[name])
    for name, site in sites.items():
        add_frame_sensor(spec, name, site, mujoco.mjtSensor.mjSENS_FRAMEPOS)
    frame = sites["object_pos"]
    add_frame_sensor(spec, "object_quat", frame, mujoco.mjtSensor.mjSENS_FRAMEQUAT)


def _set_welds(model: mujoco.MjModel) -> None:
    welds = model.eq_type == mujoco.mjtEq.mjEQ_WELD
    model.eq_data[welds, : len(_WELD_DATA)] = np.array(_WELD_DATA)
