// Many rows of one scene, stepped by C MuJoCo inside a compiled XLA program.
//
// native.py compiles this file where a C++ compiler is at hand, and steps through a callback
// elsewhere. Both call the same functions of libmujoco, so their numbers are equal.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include <mujoco/mjbatch.h>
#include <mujoco/mujoco.h>

#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace {

constexpr int kInputs = 5;
// qpos, qvel, warm start, positions of the mocap bodies, actuator inputs: the order of a row.
constexpr int kComponents[kInputs] = {mjSTATE_QPOS, mjSTATE_QVEL, mjSTATE_WARMSTART,
                                      mjSTATE_MOCAP_POS, mjSTATE_CTRL};
constexpr int kDiverged[] = {mjWARN_BADQPOS, mjWARN_BADQVEL, mjWARN_BADQACC};

struct Batch {
  mjBatch* batch;
  mjtNum* input[kInputs];
  int size[kInputs];
  int stride;  // of the state's rows
  mjtNum* sensordata;
};

struct Scene {
  mjModel* model;
  bool kinematic;  // whether kinematics alone determines all sensors
  std::map<std::pair<int, int>, std::vector<Batch>> idle;  // by rows and threads
};

std::mutex mutex;
std::map<std::int64_t, Scene> scenes;  // by a hash of the model; a program names its scene by it

// Returns a batch that nobody else steps at the same time; `batch` is null if there is no memory.
Batch Take(Scene& scene, int rows, int threads) {
  {
    std::lock_guard<std::mutex> lock(mutex);
    auto& idle = scene.idle[{rows, threads}];
    if (!idle.empty()) {
      Batch taken = idle.back();
      idle.pop_back();
      return taken;
    }
  }
  mjBatchConfig config;
  mjb_defaultConfig(&config);
  config.nthread = threads;
  Batch made = {};
  made.batch = mjb_makeBatch(scene.model, rows, &config, nullptr, 0);
  if (!made.batch) return made;
  for (int i = 0; i < kInputs; ++i) {
    made.input[i] = mjb_stateComponent(made.batch, kComponents[i], &made.size[i]);
  }
  made.stride = mjb_nstate(made.batch);
  made.sensordata = static_cast<mjtNum*>(mjb_output(made.batch, "sensordata", nullptr, nullptr));
  return made;
}

void GiveBack(Scene& scene, int rows, int threads, const Batch& taken) {
  std::lock_guard<std::mutex> lock(mutex);
  scene.idle[{rows, threads}].push_back(taken);
}

bool Kinematic(const mjModel* model) {
  for (int i = 0; i < model->nsensor; ++i) {
    const int type = model->sensor_type[i];
    if (type != mjSENS_FRAMEPOS && type != mjSENS_FRAMEQUAT && type != mjSENS_JOINTPOS) return false;
  }
  return true;
}

struct Ask {
  int substeps;
  mjtNum* sensordata;  // [rows, nsensordata], written
};

// Steps one simulation, and brings its sensors to the new state: a ninth of the time of all stages
// up to mjSTAGE_VEL is saved.
void Advance(const mjModel* model, mjData* data, int at, void* given) {
  const Ask& ask = *static_cast<Ask*>(given);
  for (int i = 0; i < ask.substeps; ++i) mj_step(model, data);
  mj_kinematics(model, data);
  mj_sensorPos(model, data);
  mju_copy(ask.sensordata + static_cast<std::ptrdiff_t>(at) * model->nsensordata,
           data->sensordata, model->nsensordata);
}

bool Sound(const float* row, int size) {
  for (int i = 0; i < size; ++i) {
    if (!(std::abs(static_cast<double>(row[i])) < mjMAXVAL)) return false;  // also for NaN
  }
  return true;
}

void Load(const Batch& batch, int at, const float* row, bool sound, const mjModel* model) {
  for (int i = 0; i < kInputs; ++i) {
    mjtNum* to = batch.input[i] + static_cast<std::ptrdiff_t>(at) * batch.stride;
    for (int j = 0; j < batch.size[i]; ++j) {
      // A bad row gets the default state, since MuJoCo would log each of them to a file.
      to[j] = sound ? row[j] : (i == 0 ? model->qpos0[j] : 0.0);
    }
    row += batch.size[i];
  }
}

void Store(const Batch& batch, int at, int sensors, float* next) {
  for (int i = 0; i + 1 < kInputs; ++i) {
    const mjtNum* from = batch.input[i] + static_cast<std::ptrdiff_t>(at) * batch.stride;
    for (int j = 0; j < batch.size[i]; ++j) *next++ = static_cast<float>(from[j]);
  }
  const mjtNum* from = batch.sensordata + static_cast<std::ptrdiff_t>(at) * sensors;
  for (int j = 0; j < sensors; ++j) *next++ = static_cast<float>(from[j]);
}

ffi::Error Step(ffi::Buffer<ffi::F32> rows, ffi::ResultBuffer<ffi::F32> next_rows,
                std::int64_t scene_key, std::int64_t threads, std::int64_t substeps) {
  Scene* scene = nullptr;
  {
    std::lock_guard<std::mutex> lock(mutex);
    auto found = scenes.find(scene_key);
    if (found != scenes.end()) scene = &found->second;
  }
  if (!scene) return ffi::Error::InvalidArgument("this process has not built the scene of this program");
  const int width = rows.dimensions().back(), out_width = next_rows->dimensions().back();
  const int count = static_cast<int>(rows.element_count() / width);
  const mjModel* model = scene->model;
  const int nthread = static_cast<int>(threads < count ? threads : count);
  Batch batch = Take(*scene, count, nthread);
  if (!batch.batch) return ffi::Error::Internal("MuJoCo could not allocate a batch");

  const float* row = rows.typed_data();
  std::vector<char> good(count);
  mjWarningStat* warning = mjb_warning(batch.batch);
  std::memset(warning, 0, sizeof(mjWarningStat) * mjNWARNING * count);
  for (int i = 0; i < count; ++i) {
    const float* from = row + static_cast<std::ptrdiff_t>(i) * width;
    good[i] = Sound(from, width);
    Load(batch, i, from, good[i], model);
  }
  Ask ask = {static_cast<int>(substeps), batch.sensordata};
  if (scene->kinematic) {
    mjb_apply(batch.batch, nullptr, count, Advance, &ask, 1);
  } else {
    mjb_step(batch.batch, nullptr, count, ask.substeps, mjSTAGE_VEL);
  }
  const int* status = mjb_status(batch.batch);
  for (int i = 0; i < count; ++i) {
    float* next = next_rows->typed_data() + static_cast<std::ptrdiff_t>(i) * out_width;
    Store(batch, i, model->nsensordata, next);
    bool kept = good[i] && !status[i];
    for (int kind : kDiverged) {
      // MuJoCo resets a diverged simulation and only sets a warning.
      kept = kept && !warning[i * mjNWARNING + kind].number;
    }
    for (int j = 0; kept && j < out_width; ++j) kept = std::isfinite(next[j]);
    if (!kept) std::fill(next, next + out_width, std::nanf(""));
  }
  GiveBack(*scene, count, nthread, batch);
  return ffi::Error::Success();
}

}  // namespace

// Keeps a copy of `model` under `key`, for programs that name it.
extern "C" void farl_add_scene(std::int64_t key, const mjModel* model) {
  std::lock_guard<std::mutex> lock(mutex);
  if (scenes.count(key)) return;
  scenes[key].model = mj_copyModel(nullptr, model);
  scenes[key].kinematic = Kinematic(model);
}

XLA_FFI_DEFINE_HANDLER_SYMBOL(farl_step, Step,
                              ffi::Ffi::Bind()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Ret<ffi::Buffer<ffi::F32>>()
                                  .Attr<std::int64_t>("scene")
                                  .Attr<std::int64_t>("threads")
                                  .Attr<std::int64_t>("substeps"));
