"""HARD in our reading, one image and one class at a time, and its turns by hand; numbers in, numbers out."""

import math


def probabilities(logits, temperature):
    exponentials = [math.exp(value / temperature) for value in logits]
    return [value / sum(exponentials) for value in exponentials]


def divergence(answer, reference, temperature):
    """T^2 KL(reference || answer), both lists of logits."""
    pairs = zip(probabilities(reference, temperature), probabilities(answer, temperature), strict=True)
    return temperature**2 * sum(p * math.log(p / q) for p, q in pairs)


def student_loss(clean, moved, teacher_clean, teacher_moved, labels, temperature, ce_weight):
    """Mean over images of D(f_s(x~), f_t(x~)) + D(f_s(x), f_t(x)) + c CE; each argument but the last: one list an
    image."""
    total = 0.0
    for s, s_moved, t, t_moved, label in zip(clean, moved, teacher_clean, teacher_moved, labels, strict=True):
        total += divergence(s_moved, t_moved, temperature) + divergence(s, t, temperature)
        total -= ce_weight * math.log(probabilities(s, 1.0)[label])
    return total / len(labels)


def augmenter_objective(clean, moved, teacher_clean, teacher_moved, temperature, student_weight, teacher_weight):
    """Mean over images of lambda_s D(f_s(x~), f_s(x)) - lambda_t D(f_t(x~), f_t(x)): what phi ascends."""
    total = 0.0
    for s, s_moved, t, t_moved in zip(clean, moved, teacher_clean, teacher_moved, strict=True):
        total += student_weight * divergence(s_moved, s, temperature)
        total -= teacher_weight * divergence(t_moved, t, temperature)
    return total / len(clean)


def who_plays(disagreements, lower, upper, most_turns, look_every):
    """The player of each turn, and of the one after the last, given what each turn measures."""
    players, player, turns_of_phase, since_look = ["student"], "student", 0, []
    for value in disagreements:
        turns_of_phase += 1
        since_look.append(value)
        if len(since_look) == look_every or turns_of_phase == most_turns:
            mean = sum(since_look) / len(since_look)
            since_look = []
            done = mean < lower if player == "student" else mean > upper
            if done or turns_of_phase == most_turns:
                player = "augmentation" if player == "student" else "student"
                turns_of_phase = 0
        players.append(player)
    return players
