"""`follow_path`: breakpoints and optima between them, against closed forms and dense grids."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import zoo

import jaxrelu as jr
from jaxrelu.paths.exact import active_system, breakpoints, continuity

TRIANGLE = np.asarray([[1.0, 0.0], [-0.5, 0.75**0.5]])


def program_of(X, y, **options):
    return jr.ConvexProgram(X, y, jr.enumerate_patterns(X), **options)


def random_program(seed, n=8, d=3, **options):
    rng = np.random.default_rng(seed)
    X, y = rng.standard_normal((n, d)), rng.standard_normal(n)
    return program_of(X, np.sign(y) if "loss" in options else y, **options)


@pytest.mark.slow
def test_group_lasso_of_two_signs_in_closed_form():
    # X = I: fit = y (1 - lam / ||y||) on the positive and on the negative targets, each on its own.
    y = np.asarray([3.0, 4.0, -2.0])
    path = jr.follow_path(program_of(np.eye(3), y), 0.1)
    np.testing.assert_allclose(path.breakpoints, [5.0, 2.0], rtol=1e-8)
    assert path.kinds == ("born", "born")
    assert path.complete
    for lam in (6.0, 3.0, 1.0, 0.1):
        expected = np.where(y > 0, max(0.0, 1 - lam / 5), max(0.0, 1 - lam / 2)) * y
        np.testing.assert_allclose(path(lam).fit, expected, atol=1e-9)


def test_shapes_of_the_optimal_set_on_the_known_segment():
    both = jr.follow_path(program_of(TRIANGLE, np.asarray([2.0, 2.0])), 0.1)
    # Three directions tie at lambda_max: the path may take the middle one or the outer two.
    assert set(both.kinds) == {"born"}
    assert both.low.shape == (1,)
    np.testing.assert_allclose(both.breakpoints, 2.0, rtol=1e-8)
    assert not both.is_unique[0]
    assert (both.num_directions[0], both.support_size[0], both.rank[0]) == (3, 3, 2)
    later = jr.follow_path(program_of(TRIANGLE, np.asarray([2.0, 0.5])), 0.1)
    np.testing.assert_allclose(later.breakpoints, [2.0, 0.5], rtol=1e-8)
    np.testing.assert_array_equal(later.is_unique, [True, False])
    np.testing.assert_array_equal(later.support_size, [1, 3])
    # Below 0.5 the minimum-norm network spreads, but from nothing.
    np.testing.assert_array_equal(later.jump, [0.0, 0.0])


# Correlations in the directions (2, 0, 1), (-1, 3^0.5, 1) and (1, 3^0.5, 1) are lam at 5^0.5, where
# the third feature is the mean of the others. Above and below it is not optimal.
TOUCHING = np.asarray([[0, 0, 1], [2, 0, 0], [-5 / 4, 11 / 48**0.5, 1], [-3 / 4, 13 / 48**0.5, -1]])


@pytest.mark.slow
def test_a_direction_that_is_optimal_at_one_lam_alone():
    program = program_of(TOUCHING, np.asarray([2.0, 3, 3, 2]))
    path = jr.follow_path(program, 0.5)
    assert path.kinds == ("born", "born", "touches")
    lam = 5**0.5
    assert path.breakpoints[2] == pytest.approx(lam, rel=1e-9)
    # a (2 - t, 2 - t, 2 t) for a = 5^0.5 / 4 and t in [0, 2]: t = 2/3 at minimum norm, else t = 0.
    np.testing.assert_allclose(path.jump, [0.0, 0.0, 0.5**0.5], atol=1e-8)
    for near, dimension in ((lam * 1.001, 0), (lam, 1), (lam * 0.999, 0)):
        # The oracle knows nothing of the path.
        optima = jr.optimal_set(program, jr.solve(program, near, rtol=1e-10))
        assert optima.dimension == dimension
        norm = np.linalg.norm(jr.select(optima, "min_norm"))
        expected = (10 / 3) ** 0.5 / 2**0.5 if dimension else 2.5**0.5
        assert norm == pytest.approx(expected, rel=2e-3)
    # The same neurons above and below, in two stretches that meet there.
    np.testing.assert_array_equal(path.blocks[1], path.blocks[2])
    assert path.low[1] == path.high[2]
    assert np.all(path.is_unique)


@pytest.mark.slow
def test_a_direction_that_comes_near_does_not_touch():
    """A little off, the third direction stays outside or takes part for a while."""
    for change in (-0.05, 0.05):
        program = program_of(TOUCHING, np.asarray([2.0, 3, 3, 2 + change]))
        path = jr.follow_path(program, 0.5)
        assert path.complete
        assert "touches" not in path.kinds
        np.testing.assert_array_equal(path.jump, 0.0)
        check_against_grid(program, path, [2.3, 2.2])


def check_against_grid(program, path, lams):
    assert path.complete
    for lam in lams:
        exact, solved = path(lam), jr.solve(program, lam, rtol=1e-10)
        assert exact.status == jr.Status.OPTIMAL
        assert exact.certificate.gap <= 1e-10 * exact.certificate.upper
        np.testing.assert_allclose(exact.fit, solved.fit, atol=2e-5)
        zoo.recheck(program, jnp.asarray(lam), exact)


def grid_of(path, number):
    return np.geomspace(0.95 * float(path.high[0]), 1.01 * float(path.low[-1]), number)


def test_dense_grid_is_the_oracle():
    program = random_program(0)
    path = jr.follow_path(program)
    assert set(path.kinds) == {"born", "dies", "wall hit", "wall left"}
    assert len(path.breakpoints) > 15
    check_against_grid(program, path, grid_of(path, 6))
    # Stretches join without a gap, and the optimum is continuous across every breakpoint.
    np.testing.assert_allclose(path.low[:-1], path.high[1:], rtol=1e-8)
    for lam in np.asarray(path.breakpoints)[1::4]:
        above, below = path(lam * (1 + 1e-6)), path(lam * (1 - 1e-6))
        np.testing.assert_allclose(above.fit, below.fit, atol=1e-3)


@pytest.mark.slow
def test_a_grid_far_denser_than_the_breakpoints_is_the_oracle():
    program = random_program(0)
    path = jr.follow_path(program)
    lams = grid_of(path, 150)
    assert len(lams) > 5 * len(path.breakpoints)
    solved = jr.solve_path(program, lams, rtol=1e-10)
    assert np.all(np.asarray(solved.status) == jr.Status.OPTIMAL)
    for k, lam in enumerate(lams):
        exact = path(lam).certificate
        assert exact.lower <= solved.upper[k] * (1 + 1e-12)
        assert solved.lower[k] <= exact.upper * (1 + 1e-12)
        np.testing.assert_allclose(path(lam).fit, solved[k].fit, atol=1e-4)


def test_events_are_what_they_say():
    """Blocks that are born or die are small there, samples on a wall of theirs just near it."""
    program = random_program(0)
    path = jr.follow_path(program)
    X = np.asarray(program.X)
    events = zip(*map(np.asarray, (path.breakpoints, path.block, path.sample)), strict=True)
    for kind, (lam, block, sample) in zip(path.kinds, events, strict=True):
        above, below = (
            np.asarray(path(lam * (1 + step)).weights).reshape(-1, X.shape[1])[block]
            for step in (1e-5, -1e-5)
        )
        size = [np.linalg.norm(weight) for weight in (above, below)]
        if kind in ("born", "dies"):
            gone, there = size if kind == "born" else size[::-1]
            assert gone == 0
            assert 0 < there < 0.05
            continue
        off, on = (above, below) if kind == "wall hit" else (below, above)
        assert 0 < abs(X[sample] @ off) < 1e-2 * np.linalg.norm(off)
        # A neuron that leaves a wall may have been in the cell on the other side.
        assert abs(X[sample] @ on) <= 1e-12 * np.linalg.norm(on)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 5))
def test_shapes_are_those_of_the_optimal_set(seed):
    program = random_program(seed, n=7, d=3)
    path = jr.follow_path(program)
    middles = np.sqrt(np.asarray(path.low) * np.asarray(path.high))
    clear = 0
    for s in range(0, len(middles), 3):
        optima = jr.optimal_set(program, path(middles[s]))
        assert not path.ambiguous[s]
        clear += not optima.ambiguous  # near a breakpoint it may be
        assert path.num_directions[s] == optima.signs.size
        assert int(path.support_size[s]) == int(np.sum(optima.support))
        assert (path.rank[s], path.is_unique[s]) == (optima.rank, optima.is_unique)
    assert clear >= 3


@pytest.mark.slow
def test_shapes_where_samples_beyond_the_margin_are_free():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((40, 3))
    y = np.where(X[:, 0] + 0.3 * rng.standard_normal(40) > 0, 1.0, -1.0)
    patterns = jr.sample_patterns(jax.random.key(0), X, 40)
    program = jr.GatedProgram(X, y, patterns, jr.SquaredHingeLoss())
    path = jr.follow_path(program, 0.005 * float(jr.lambda_max(program)))
    middles = np.sqrt(np.asarray(path.low) * np.asarray(path.high))
    several = compared = 0
    for s in range(4, len(middles), 6):
        answer = path(middles[s])
        assert answer.status == jr.Status.OPTIMAL
        optima = jr.optimal_set(program, answer)
        several += not optima.is_unique
        if not (path.ambiguous[s] or optima.ambiguous):
            compared += not optima.is_unique
            assert int(path.support_size[s]) == int(np.sum(optima.support))
            assert (path.rank[s], path.is_unique[s]) == (optima.rank, optima.is_unique)
    assert min(several, compared) > 1


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 7))
def test_more_grids(seed):
    options = {"loss": jr.LogisticLoss()} if seed % 3 == 0 else {}
    if seed % 2:
        options["sample_weight"] = np.random.default_rng(seed).uniform(0.5, 2.0, 8)
    program = random_program(seed, **options)
    path = jr.follow_path(program)
    check_against_grid(program, path, grid_of(path, 12))


@pytest.mark.slow
def test_degenerate_data():
    rng = np.random.default_rng(5)
    for X in (np.round(rng.standard_normal((9, 3))), np.sign(rng.standard_normal((9, 3)))):
        program = program_of(X, np.sign(rng.standard_normal(9)))
        path = jr.follow_path(program)
        check_against_grid(program, path, grid_of(path, 5))


@pytest.mark.slow
def test_gated_program():
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((8, 3)), rng.standard_normal(8)
    patterns = jr.sample_patterns(jax.random.key(0), X, 6, gated=True)
    program = jr.GatedProgram(X, y, patterns)
    path = jr.follow_path(program, 0.1 * jr.lambda_max(program))
    assert set(path.kinds) <= {"born", "dies"}
    check_against_grid(program, path, grid_of(path, 4))


@pytest.mark.slow
def test_a_new_solution_finds_the_structure_below():
    program = random_program(0)
    host = active_system.host_program(program)
    path = jr.follow_path(program)
    lam = float(jnp.sqrt(path.high[8] * path.low[8]))
    neurons, point, below = breakpoints._anew(program, host, lam, float(path.low[-1]))
    assert point.lam == pytest.approx(lam, rel=1e-9)  # followed back up to where it was asked for
    assert below.lam < point.lam
    np.testing.assert_allclose(point.fit, path(lam).fit, atol=1e-9)
    assert len(neurons) == int(path.num_neurons[8])


@pytest.mark.slow
def test_derivative_between_breakpoints_is_the_sensitivity():
    program = random_program(2)
    path = jr.follow_path(program)
    widest = int(jnp.argmax(path.high / path.low))
    lam = float(jnp.sqrt(path.high[widest] * path.low[widest]))
    found = jr.sensitivity(program, path(lam))
    step = 1e-4 * lam
    slope = (path(lam + step).fit - path(lam - step).fit) / (2 * step)
    assert found.reliable
    np.testing.assert_allclose(found.fit_by_lam, slope, rtol=1e-5, atol=1e-6)


def test_jump_of_the_minimum_norm_network():
    # A third direction that is optimal at one lam alone: (c, c, 0) against (2c/3, 2c/3, 2c/3).
    u = np.vstack([TRIANGLE, [0.5, 0.75**0.5]])
    features = np.maximum(u @ TRIANGLE.T, 0.0).T
    member = np.asarray([1.5, 1.5, 0.0])
    fit = features @ member
    whole = continuity.Dictionary(u, np.ones(3), features, member, fit, fit)
    part = continuity.Dictionary(u[:2], np.ones(2), features[:, :2], member[:2], fit, fit)
    assert continuity.jump_between(whole, [part, part]) == pytest.approx(0.5**0.5)
    assert continuity.jump_between(whole, [whole]) == 0.0


def test_ends_and_bad_input():
    program = random_program(0)
    short = jr.follow_path(program, max_events=3)
    assert not short.complete
    assert len(short.breakpoints) == 3
    with pytest.raises(ValueError, match="smaller lam_min"):
        short(0.5 * float(short.low[-1]))
    tied = jr.follow_path(program_of(np.eye(2), np.asarray([1.0, -1.0])), max_events=1)
    assert not tied.complete
    with pytest.raises(ValueError, match="larger max_events"):
        tied(0.5)  # two neurons are born at one lam: the path ends where it begins
    above = jr.follow_path(program, 2 * jr.lambda_max(program))
    with pytest.raises(ValueError, match="smaller lam_min"):
        above(0.5 * jr.lambda_max(program))
    nothing = jr.follow_path(program, 2 * jr.lambda_max(program))
    assert nothing.complete
    assert nothing.breakpoints.size == 0
    np.testing.assert_array_equal(nothing(100.0).fit, np.zeros(8))
    with pytest.raises(ValueError, match="max_events"):
        jr.follow_path(program, max_events=0)
    with pytest.raises(ValueError, match="lam"):
        jr.follow_path(program, -1.0)
    single = jr.enumerate_patterns(np.asarray(program.X, "f4"))
    with pytest.raises(TypeError, match="float64"):
        jr.follow_path(jr.ConvexProgram(program.X.astype("f4"), program.y.astype("f4"), single))
    with pytest.raises(TypeError, match="outside jit"):
        jax.jit(lambda p: jr.follow_path(p).low)(program)
