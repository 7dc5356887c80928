"""Small wrong changes to Penjing's sources: data for benchmarks/mutants.py.

Each is a file, a text that stands in it once, and what takes its place; they stand in groups that share their near tests.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """One wrong change.

    Attributes:
        file: below src/penjing.
        text: stands in it once.
        other: takes its place.
        tests: near it, below tests: files, folders, or single tests as pytest names them.
        same: why it computes the same, where it does; then no test can notice it.
    """

    file: str
    text: str
    other: str
    tests: tuple[str, ...]
    same: str = ""


# Near tests, then (file, text, other) of each mutant.
_GROUPS: tuple[tuple[str, tuple[str, ...], tuple[tuple[str, str, str], ...]], ...] = (
    (
        "pruning/criteria/",
        ("pruning/test_criteria_oracles.py",),
        (
            ("_fisher.py", "slope.square().sum(1)", "slope.sum(1).square()"),
            ("_fpgm.py", '"donot_use_mm_for_euclid_dist").sum(1)', '"donot_use_mm_for_euclid_dist").amax(1)'),
            ("_taylor2.py", "product.curved[name] / 2", "product.curved[name]"),
            ("_obd.py", "/ (2 * max(batches, 1))", "/ max(batches, 1)"),
            ("_snip.py", "(weight * slopes[name]).abs()", "(weight * slopes[name])"),
            ("_apoz.py", "(maps != 0)", "(maps >= 0)"),
            ("_grasp.py", "weight * product.curved[name] / batches", "weight.abs() * product.curved[name] / batches"),
        ),
    ),
    (
        "pruning/criteria/",
        (
            "pruning/test_criteria.py::test_taylor_is_the_squared_gradient_of_a_gate_on_each_channel",
            "pruning/test_criteria.py::test_taylor_without_a_norm_takes_weights_and_biases",
            "pruning/test_criteria.py::test_bn_scale_is_the_magnitude_of_gamma",
            "pruning/test_criteria.py::test_l2_is_the_norm_of_all_weights_that_make_a_unit",
        ),
        (
            ("_taylor.py", "score += change.square()", "score += change.abs()"),
            ("_bn_scale.py", ".detach().abs(), e)", ".detach(), e)"),
            ("_l2.py", ", finish=Tensor.sqrt)", ")"),
        ),
    ),
    (
        "pruning/criteria/",
        ("pruning/test_reconstruction.py",),
        (
            ("_obs.py", ".double().square() / (2 * diagonal)", ".double().square() * (2 * diagonal)"),
            ("_obs.py", "matrix[..., i:] -= error", "matrix[..., i:] += error"),
            ("_thinet.py", "2 * with_gone", "with_gone"),
        ),
    ),
    (
        "pruning/allocations/",
        ("pruning/test_allocations.py",),
        (
            ("_erk.py", "sum(shape) / math.prod(shape)", "1.0 / math.prod(shape)"),
            ("_erk.py", "key=lambda i: kept[i] - exact[i])\n    for", "key=lambda i: exact[i] - kept[i])\n    for"),
            ("_global.py", "len(order) - len(scores))", "len(order))"),
            ("_global.py", "s.square().mean().sqrt()", "s.square().sum().sqrt()"),
            ("_lamp.py", "squares.flip(0).cumsum(0).flip(0)", "squares.cumsum(0)"),
            ("_threshold.py", "(score >= amount)", "(score > amount)"),
            ("_uniform.py", "amount * len(s) + 0.5", "amount * len(s)"),
            ("_sensitivity.py", "np.maximum.accumulate([0.0, *found])", "np.array([0.0, *found])"),
            ("_plan.py", "rounding if share else None", "rounding"),
        ),
    ),
    (
        "pruning/granularities/",
        ("pruning/test_granularities.py", "pruning/test_granularities_kernels.py"),
        (
            ("_n_m.py", "rank >= m - n", "rank > m - n"),
            ("_block.py", ".transpose(1, 2).reshape(-1, rows * columns)", ".reshape(-1, rows * columns)"),
            ("_vector.py", "weight.transpose(-1, -2) if column else weight", "weight"),
        ),
    ),
    ("pruning/schedules/", ("pruning/test_schedules.py",), (("_cubic.py", ")) ** 3", ")) ** 2"),)),
    (
        "graph/cost.py",
        ("graph/test_cost.py",),
        (
            (
                "",
                "return math.prod(shape(args[0])) * math.prod(shape(args[1])[1:])",
                "return math.prod(shape(node)) * math.prod(shape(args[1])[1:])",
            ),
            ("", "queries * keys * (features + values)", "queries * keys * features"),
            ("", "max(n, size.get(axis, 1))", "n"),
            ("", "max(dies.get(owner[node], 0), last)", "last"),
            ("", "fresh = [tensor for tensor in read if id(tensor) not in seen]", "fresh = list(read)"),
            (
                "",
                "math.ceil(counter(node, node_arguments(node), shape) / samples)",
                "counter(node, node_arguments(node), shape)",
            ),
        ),
    ),
    (
        "graph/edit/surgery.py",
        ("graph/test_surgery.py",),
        (
            ("", "rank[classes].argmax()", "rank[classes].argmin()"),
            ("", "if left < longer.size and left == other", "if left == other"),
            ("", "outer[before + inner.size :]", "outer[before:]"),
            ("", "graph.masks[name] = _select(graph.masks[name], keep)", "pass"),
            ("", "len(np.unique(indices)) >= group.units", "len(indices) >= group.units"),
        ),
    ),
    (
        "graph/edit/surgery.py",
        ("graph/test_rules_shaping.py", "graph/test_free_sizes.py", "graph/test_channels.py"),
        (("", "None if labels is None or self.period(node, axis) else", "None if labels is None else"),),
    ),
    (
        "graph/edit/surgery.py",
        ("graph/test_rules_recurrent.py",),
        (("", "keep_one_more(longer)", "keep_one_more(shorter)"),),
    ),
    (
        "quantization/grids/",
        (
            "quantization/grids/test_grids.py",
            "quantization/grids/test_weight_grids.py",
            "quantization/grids/test_codes.py",
        ),
        (
            ("_affine.py", "max(min(low, 0.0), within[0])", "max(low, within[0])"),
            ("_affine.py", "grid.low - round(low / scale)", "grid.low - int(low / scale)"),
            ("_int.py", "(largest / grid.high)", "(largest / (grid.high + 1))"),
            ("_least_error.py", "torch.where(now < error, tried, best)", "torch.where(now > error, tried, best)"),
            ("_power_of_two.py", "torch.where(mantissa == 0.5, exponent - 1, exponent)", "exponent"),
            ("_ternary.py", "0.7 * magnitude", "0.5 * magnitude"),
            ("_binary.py", "rows.values < 0, -1, 1", "rows.values <= 0, -1, 1"),
            ("_uint.py", "rows.values.amin(1).clamp_max(0)", "rows.values.amin(1)"),
            ("_uint.py", "(low / scale).round()", "(low / scale).floor()"),
            ("_codebook.py", "distance[:, :-1]) / 2, rows", "distance[:, :-1]) / 3, rows"),
            ("_codebook.py", "(counts == 0) | ((centroids == 0) & hold_zero)", "counts == 0"),
        ),
    ),
    (
        "evidence/statistics.py",
        ("evidence/test_statistics.py", "quantization/observers"),
        (
            (
                "",
                "self.momentum * old_low + (1 - self.momentum) * low",
                "(1 - self.momentum) * old_low + self.momentum * low",
            ),
            ("", "self.counts += torch.bincount", "self.counts = torch.bincount"),
            ("", "old[filled] - first", "old[filled] - self.first"),
        ),
    ),
    (
        "quantization/observers/",
        ("quantization/observers",),
        (
            ("_mse.py", "level.clamp(0, steps)", "level"),
            ("_percentile.py", "(100 - percent) / 100", "(100 - percent) / 200"),
            ("_entropy.py", "inside.sum(1) > steps", "inside.sum(1) >= 0"),
            ("_entropy.py", "(beyond * (positions < first[:, None]))", "(beyond * (positions > last[:, None]))"),
            ("_histogram.py", "if error > least", "if error < least"),
        ),
    ),
    (
        "quantization/rounding/",
        ("quantization/rounding/test_roundings.py", "quantization/rounding/test_descent.py"),
        (
            ("_truncate.py", "real.abs() * (1 + SLACK)", "real.abs()"),
            ("_stochastic.py", "chance < real - below", "chance > real - below"),
            ("_hard.py", "shift - off", "shift + off"),
            ("_hard.py", "taken = one.errors < other.errors", "taken = one.errors > other.errors"),
            ("_soft.py", "self.v.detach() > 0", "self.v.detach() < 0"),
        ),
    ),
    (
        "quantization/corrections/",
        ("quantization/corrections/test_cross_layer_equalization.py", "quantization/corrections/test_corrections.py"),
        (
            ("_cross_layer_equalization.py", "(own / read).sqrt()", "(own / read)"),
            ("_cross_layer_equalization.py", "[pair.first], -least)", "[pair.first], least)"),
            ("_means.py", "share = count / self._count", "share = 1.0"),
        ),
    ),
    (
        "records.py",
        ("test_records.py",),
        (
            ("", "if key in record:", "if False:"),
            ("", "object_pairs_hook=_object, parse_constant=_no_number", "object_pairs_hook=_object"),
            ("", "if isinstance(value, float) and not math.isfinite(value):", "if False:"),
            ("", "if levels == 0:", "if False:"),
            ("", "if not -BEYOND < value < BEYOND:", "if False:"),
            ("", "strict=True, dec_hook", "strict=False, dec_hook"),
            ("", "if odd := sorted(value.keys() - set(names)):", "if odd := []:"),
            ("", "if whole and is_dataclass(made):", "if False:"),
            ("", "_found(value[key], rest, is_wrong)) is not None:", "_found(value[key], rest, bool)) is not None:"),
        ),
    ),
    (
        "budget.py",
        ("test_budget.py",),
        (
            ("", '"kb": 1e3', '"kb": 2**10'),
            ("", "not 0 < limit.amount < math.inf", "not 0 <= limit.amount < math.inf"),
            ("", "Limit(number, True)", "Limit(number / 2, True)"),
        ),
    ),
    (
        "planning/",
        ("planning/test_knapsack.py", "planning/test_assignment.py", "planning/test_widest_that_fits.py"),
        (
            ("assignment.py", "if all(excess <= 0 for excess in passed.values())", "if True"),
            ("problem.py", "value <= MARGIN * limit.of(original)", "value <= limit.of(original)"),
            ("candidates.py", "_share(integer) <= WORTH * _share(plain) else plain", "_share(integer) else plain"),
        ),
    ),
    (
        "planning/solvers/",
        ("planning/test_widest_that_fits.py", "planning/test_hold_metric.py", "planning/test_least_noise.py"),
        (
            (
                "_hold_metric.py",
                "(low, middle) if holds(middle) else (middle, high)",
                "(middle, high) if holds(middle) else (low, middle)",
            ),
            ("_least_noise.py", "rest[kind] + max(0.0, over[kind])", "rest[kind]"),
            ("_widest_that_fits.py", "key=_saved)", "key=lambda options: -_saved(options))"),
        ),
    ),
    (
        "pruning/",
        ("planning/test_widths.py", "pruning/test_again.py"),
        (
            ("technique.py", "key=lambda kept: -share(kept)", "key=share"),
            ("technique.py", "widths.pop(whole, None)", "pass"),
            ("_again.py", "not last or again or _shared(option)", "not last or _shared(option)"),
            ("_again.py", "not 1 <= keep <= own or", "keep < 1 or"),
        ),
    ),
    (
        "quantization/technique.py",
        ("planning/test_apply.py",),
        (
            ("", "if path in able or path in rounded", "if path in rounded"),
            ("", 'key=lambda item: -item[0].count(".")', 'key=lambda item: item[0].count(".")'),
        ),
    ),
    (
        "tasks/",
        ("tasks",),
        (
            ("_likeness.py", "& given & answered(other)", "& given"),
            ("_likeness.py", " & ~other.isnan()", ""),
            ("_likeness.py", "found <= FLAT * self.magnitude", "found < 0"),
            ("_top_one.py", "(indices + 1) % logits.shape[1]", "indices"),
            ("_evaluate.py", "least = min(range", "least = max(range"),
            ("_classification.py", "max(counts.values())", "min(counts.values())"),
        ),
    ),
    (
        "distillation/",
        ("distillation", "training/test_recover.py"),
        (
            ("signals/_soft_labels.py", "* temperature**2", "* temperature"),
            ("signals/_suited.py", 'answers == "values"', 'answers == "classes"'),
            ("balances/_fixed.py", "(1 - self.weight) * task + self.weight", "self.weight * task + (1 - self.weight)"),
            ("balances/_auto.py", "share = max(1 - KEPT, ", "share = min(1 - KEPT, "),
            ("balances/_pcgrad.py", "(1 - scale[1]) * own", "(1 - scale[0]) * own"),
        ),
    ),
    (
        "training/",
        ("training/test_checkpoint.py", "training/test_schedule.py", "training/test_speed.py"),
        (
            ("checkpoint.py", "if differing:", "if False:"),
            ("checkpoint.py", '(standing.began_with, digest(content["model"]))', "(digest(graph.state_dict()),)"),
            ("checkpoint.py", 'masks.update(content["masks"])', "pass"),
            (
                "checkpoint.py",
                "with atomic_path(self.path) as temporary:\n                torch.save(content, temporary)",
                "torch.save(content, self.path)",
            ),
            ("schedule.py", "return progress / warmup", "return progress"),
            ("speed.py", "seconds[best] < least * seconds[plain]", "seconds[best] < seconds[plain]"),
        ),
    ),
    ("training/", ("training/test_deadline.py",), (("deadline.py", "counted < TRUSTED or", ""),)),
    (
        "training/",
        ("training/test_signals.py", "training/test_speed.py", "training/test_tapped.py"),
        (
            ("tapped.py", "output.clone() if", "output if"),
            ("tapped.py", "handle.remove()", "pass"),
            ("speed.py", "with objective.unchanged():", "if True:"),
            ("run.py", "total / standing.counts[name]", "total / standing.counted"),
            ("objective.py", "or of_task == 0:", "or of_task == 1:"),
        ),
    ),
    (
        "files.py",
        ("test_files.py",),
        (
            (
                "",
                "with atomic_path(path) as temporary:\n        temporary.write_bytes(content",
                "if True:\n        Path(path).write_bytes(content",
            ),
            ("", "temporary.replace(path)", "path.unlink(missing_ok=True)\n        temporary.rename(path)"),
            ("", "os.fsync(stream.fileno())", "pass"),
        ),
    ),
    (
        "run/",
        ("run/test_lock.py", "run/test_workspace.py"),
        (
            ("lock.py", "if not _is_at(descriptor, path)", "if False"),
            ("workspace.py", "if free < needed - there", "if free < needed - 2 * there"),
        ),
    ),
    (
        "storage/",
        ("storage/test_hostile_files.py",),
        (("plain.py", "if members[name].file_size > records.LARGEST", "if False"),),
    ),
)

# Mutants that compute the same, by (file, other): why.
_SAME: dict[tuple[str, str], str] = {
    ("graph/edit/surgery.py", "if left == other"): "where nothing went, one more stays already",
}

MUTANTS = tuple(
    Mutant(folder + file, text, other, tests, _SAME.get((folder + file, other), ""))
    for folder, tests, mutants in _GROUPS
    for file, text, other in mutants
)
