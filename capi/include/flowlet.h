/* The C interface of flowlet: flow-matching policies on microcontrollers.
 *
 * Made from capi/src by `cargo xtask c-interface`; link libflowlet_c.a. Nothing is allocated, nothing waits, and every
 * function that can fail returns a flowlet_error and, when it is not FLOWLET_OK, writes nothing. A policy and a gate are
 * not to be used by two threads or by an interrupt at once.
 */

#ifndef FLOWLET_H
#define FLOWLET_H

#include <stddef.h>
#include <stdint.h>
#include <stdbool.h>

/* Bytes that are enough for a policy of so many observations, actions, units a layer and rows of the time table (Euler:
 * its steps), for static memory; flowlet_policy_size tells them exactly. Memory is lent aligned to 8 bytes. */
#define FLOWLET_POLICY_MEMORY(observations, actions, hidden, rows) \
    (192 * sizeof(void *) + 4 * (((rows) + 4) * (hidden) + 2 * (observations) + 5 * (actions)))


// What a function of flowlet returns: zero, or why it did nothing.
typedef enum {
  // Done.
  FLOWLET_OK = 0,
  // A pointer is NULL.
  FLOWLET_NULL = 1,
  // A pointer is not aligned: floats and artefacts to 4 bytes, lent memory to 8.
  FLOWLET_MISALIGNED = 2,
  // The lent memory is shorter than the size function says.
  FLOWLET_MEMORY = 3,
  // Two areas that must lie apart overlap, or an area is longer than memory can be.
  FLOWLET_OVERLAP = 4,
  // The handle was not opened, or its memory was moved or overwritten.
  FLOWLET_NOT_OPEN = 5,
  // An array does not have as many numbers as the policy has channels.
  FLOWLET_LENGTH = 6,
  // There is no channel of that index.
  FLOWLET_INDEX = 7,
  // The bytes are not an artefact: the magic number is missing.
  FLOWLET_NO_ARTEFACT = 8,
  // The artefact has a format version that this library does not know.
  FLOWLET_VERSION = 9,
  // The artefact is truncated or damaged.
  FLOWLET_DAMAGED = 10,
  // A field of the artefact has a value that the format does not allow.
  FLOWLET_FORMAT = 11,
  // An observation is NaN or infinite.
  FLOWLET_OBSERVATION = 12,
  // The self-test gave other bits than the artefact expects.
  FLOWLET_SELF_TEST = 13,
  // The network overflowed: its weights are not those of a trained one.
  FLOWLET_NETWORK = 14,
  // Limits are reversed, not numbers, not above zero, or exclude fallback or stop.
  FLOWLET_LIMITS = 15,
} flowlet_error;

// The gate of one action channel in memory that the caller lent.
typedef struct flowlet_gate flowlet_gate;

// A policy in memory that the caller lent.
typedef struct flowlet_policy flowlet_policy;

// What a channel's command may do, in the plant's units.
typedef struct {
  // Lowest command.
  float low;
  // Highest command, above the lowest.
  float high;
  // Largest change of the command in a second; infinite where it is not limited.
  float rate;
  // Largest change of the rate in a second; infinite where it is not limited.
  float jerk;
  // Command that is approached, within rate and jerk, while the wish is NaN or infinite.
  float fallback;
  // Command at the start, and at once by `flowlet_gate_stop`.
  float stop;
} flowlet_limits;

// What a policy says of itself.
typedef struct {
  // Channels of an observation.
  uint32_t observations;
  // Channels of an action.
  uint32_t actions;
  // Steps of the integration.
  uint32_t steps;
  // Time from one decision to the next, microseconds.
  uint32_t period_us;
  // Multiply-accumulates of a decision.
  uint32_t macs;
} flowlet_info;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// A sentence for an error code, in static memory.
const char *flowlet_error_text(int32_t error);

// Bytes that `flowlet_gate_open` needs.
size_t flowlet_gate_size(void);

// Checks limits, makes their gate in `memory` and writes the handle to `gate`. Its command begins at the stop.
//
// `period_us` is the time from one call of `flowlet_gate_apply` to the next. `memory`, aligned to 8 bytes, must stay where
// it is as long as the gate is used.
//
// # Safety
// `limits` points to limits, `memory` to `memory_length` bytes that nobody else uses, `gate` to a pointer.
flowlet_error flowlet_gate_open(const flowlet_limits *limits,
                                uint32_t period_us,
                                void *memory,
                                size_t memory_length,
                                flowlet_gate **gate);

// Writes the next command towards `wish` to `command`: finite and within the limits, whatever `wish` is.
//
// A wish that is NaN or infinite, what a failed decision should be passed on as, approaches the fallback.
//
// # Safety
// `gate` is NULL or an opened gate, `command` NULL or a `float`.
flowlet_error flowlet_gate_apply(flowlet_gate *gate, float wish, float *command);

// Writes the stop to `command`, at once, past rate and jerk: for an emergency stop.
//
// # Safety
// `gate` is NULL or an opened gate, `command` NULL or a `float`.
flowlet_error flowlet_gate_stop(flowlet_gate *gate, float *command);

// Writes the number of bytes that `flowlet_policy_open` needs for this artefact to `size`.
//
// # Safety
// `artefact` points to `length` bytes, `size` to a `size_t`.
flowlet_error flowlet_policy_size(const uint8_t *artefact, size_t length, size_t *size);

// Checks an artefact, makes its policy in `memory` and writes the handle to `policy`. The noise begins at seed 0.
//
// The artefact is used in place: it must stay where it is, unchanged, as long as the policy is used; so must `memory`,
// which may be used for something else afterwards (there is nothing to close). Aligned: the artefact to 4 bytes, `memory`
// to 8. Call `flowlet_policy_self_test` next.
//
// # Safety
// `artefact` points to `length` bytes, `memory` to `memory_length` bytes that nobody else uses, `policy` to a pointer.
flowlet_error flowlet_policy_open(const uint8_t *artefact,
                                  size_t length,
                                  void *memory,
                                  size_t memory_length,
                                  flowlet_policy **policy);

// Writes what the policy says of itself to `info`.
//
// # Safety
// `policy` is NULL or an opened policy, `info` NULL or memory for it.
flowlet_error flowlet_policy_info(flowlet_policy *policy, flowlet_info *info);

// Runs the artefact's self-test: whether this machine computes, bit for bit, what was exported.
//
// # Safety
// `policy` is NULL or an opened policy.
flowlet_error flowlet_policy_self_test(flowlet_policy *policy);

// Begins the noise of the decisions anew: the same seed, observations and artefact give the same actions everywhere.
//
// # Safety
// `policy` is NULL or an opened policy.
flowlet_error flowlet_policy_seed(flowlet_policy *policy, uint64_t seed);

// Decides: takes an observation and writes an action, both in the plant's units.
//
// The action is finite and inside the artefact's range. On an error it is left as it was, and a motor should get its
// fallback; an observation that is NaN or infinite is an error.
//
// # Safety
// `policy` is NULL or an opened policy; `observation` points to `observations` floats, `action` to `actions` floats.
flowlet_error flowlet_policy_act(flowlet_policy *policy,
                                 const float *observation,
                                 size_t observations,
                                 float *action,
                                 size_t actions);

// Runs a thousand decisions on observations from `seed` and writes the digest of their actions to `digest`: the one
// that `cargo xtask digests --seed` shows for this artefact. The noise of `flowlet_policy_act` stays as it is.
//
// # Safety
// `policy` is NULL or an opened policy, `digest` NULL or a `uint64_t`.
flowlet_error flowlet_policy_digest(flowlet_policy *policy, uint64_t seed, uint64_t *digest);

// Writes the artefact's name, the robot it was trained for, with a final zero to `text`.
//
// # Safety
// `policy` is NULL or an opened policy, `text` points to `length` bytes.
flowlet_error flowlet_policy_name(flowlet_policy *policy, char *text, size_t length);

// Writes the name of an observation channel with a final zero to `text`; 17 bytes are always enough. A firmware compares
// the names with its own before it drives a motor.
//
// # Safety
// `policy` is NULL or an opened policy, `text` points to `length` bytes.
flowlet_error flowlet_policy_observation_name(flowlet_policy *policy,
                                              size_t channel,
                                              char *text,
                                              size_t length);

// Writes the name of an action channel with a final zero to `text`.
//
// # Safety
// `policy` is NULL or an opened policy, `text` points to `length` bytes.
flowlet_error flowlet_policy_action_name(flowlet_policy *policy, size_t channel, char *text, size_t length);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* FLOWLET_H */
