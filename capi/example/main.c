/* A firmware in C that asks a flowlet policy for actions: what a control loop in C does, with its outcome as text.
 *
 * The artefact is linked in by policy.S. No C library, no heap: the policy lives in static memory, whose size is checked
 * against what the library says. Ends with exit code 0, or 1 and one line that names what is wrong.
 */
#include "console.h"
#include "flowlet.h"

/* 3 observations, 1 action, width 64, up to 10 rows of the time table: what a pendulum's policy needs and more. */
static uint64_t policy_memory[FLOWLET_POLICY_MEMORY(3, 1, 64, 10) / 8 + 1];
static uint64_t gate_memory[16];

extern const uint8_t policy_begin[], policy_end[];

static void check(const char *what, flowlet_error error) {
    if (error != FLOWLET_OK) {
        print(what);
        print(": ");
        print(flowlet_error_text(error));
        print("\n");
        leave(1);
    }
}

static bool equal(const char *a, const char *b) {
    while (*a && *a == *b) {
        a++, b++;
    }
    return *a == *b;
}

/* This robot's channels: an artefact for another robot must not drive it. */
static void check_channels(flowlet_policy *policy) {
    static const char *const observations[] = {"cos_theta", "sin_theta", "theta_dot"};
    flowlet_info info;
    char name[17];
    check("info", flowlet_policy_info(policy, &info));
    if (info.observations != 3 || info.actions != 1) {
        print("the artefact is for another robot: the number of channels differs\n");
        leave(1);
    }
    for (size_t i = 0; i < 3; i++) {
        check("channel", flowlet_policy_observation_name(policy, i, name, sizeof name));
        if (!equal(name, observations[i])) {
            print("the artefact is for another robot: it has a channel ");
            print(name);
            print("\n");
            leave(1);
        }
    }
}

/* CRC-64/XZ over the bits of the actions, least significant bit first, as flowlet's digest. */
static uint64_t crc64(uint64_t crc, uint32_t bits) {
    for (int i = 0; i < 32; i++, bits >>= 1) {
        crc = (crc ^ bits) & 1 ? (crc >> 1) ^ 0xc96c5795d7870f42u : crc >> 1;
    }
    return crc;
}

/* A thousand decisions by flowlet_policy_act on observations that are exact in binary, and the digest of the actions. */
static uint64_t control(flowlet_policy *policy, flowlet_gate *gate) {
    uint64_t crc = ~(uint64_t)0;
    check("seed", flowlet_policy_seed(policy, 1));
    for (int step = 0; step < 1000; step++) {
        float observation[3], action[1], command;
        union {
            float value;
            uint32_t bits;
        } number;
        for (int channel = 0; channel < 3; channel++) {
            observation[channel] = (float)((step * 37 + channel * 11) % 201 - 100) / 64.0f;
        }
        check("act", flowlet_policy_act(policy, observation, 3, action, 1));
        /* Limits as wide as the policy's range let every action pass with its bits. */
        check("gate", flowlet_gate_apply(gate, action[0], &command));
        number.value = command;
        crc = crc64(crc, number.bits);
    }
    return ~crc;
}

/* What a failed sensor leads to: an error, no action, and the fallback through the gate. */
static void lose_a_sensor(flowlet_policy *policy, flowlet_gate *gate) {
    float observation[3] = {1.0f, __builtin_nanf(""), 0.0f}, action[1] = {123.0f}, command = 123.0f;
    flowlet_error error = flowlet_policy_act(policy, observation, 3, action, 1);
    print("a sensor that is no number: ");
    print(flowlet_error_text(error));
    check("gate", flowlet_gate_apply(gate, __builtin_nanf(""), &command));
    print(action[0] == 123.0f && command == 0.0f ? "; the motor gets its fallback\n" : "; the motor gets garbage\n");
}

int main(void) {
    const flowlet_limits limits = {-2.0f, 2.0f, __builtin_inff(), __builtin_inff(), 0.0f, 0.0f};
    const size_t length = (size_t)(policy_end - policy_begin);
    flowlet_policy *policy;
    flowlet_gate *gate;
    size_t size;
    uint64_t digest;

    check("size", flowlet_policy_size(policy_begin, length, &size));
    check("open", flowlet_policy_open(policy_begin, length, policy_memory, sizeof policy_memory, &policy));
    check("gate", flowlet_gate_open(&limits, 50000, gate_memory, sizeof gate_memory, &gate));
    check_channels(policy);
    check("self-test", flowlet_policy_self_test(policy));
    print("self-test: passed\n");
    print_number("memory of the policy: ", size, " bytes\n");

    check("digest", flowlet_policy_digest(policy, 0, &digest));
    print_hex("digest: ", digest);
    print_hex("actions: ", control(policy, gate));
    lose_a_sensor(policy, gate);
    print_number("stack: ", stack_used(), " bytes\n");
    return 0;
}
