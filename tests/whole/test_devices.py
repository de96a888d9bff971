"""Several devices, by JAX's own means: lams over a mesh, samples over a mesh, two processes.

Each test starts processes of its own: the number of devices is fixed when JAX starts.
"""

import json
import os
import re
import socket
import subprocess
import sys

import numpy as np
import pytest
import zoo

import jaxrelu as jr

GENERIC = zoo.problem(zoo.generic)
LAMS = GENERIC.lams(0.6, 0.4, 0.3, 0.2, 0.1)

PREAMBLE = """
import json, sys
import jax
jax.config.update("jax_enable_x64", True)
{before}
import numpy as np
import zoo
import jaxrelu as jr
problem = zoo.problem(zoo.generic)
program, lams = problem.program, problem.lams(0.6, 0.4, 0.3, 0.2, 0.1)
"""
REPORT = """
print(json.dumps({"status": np.asarray(answer.status).tolist(),
                  "fit": np.asarray(answer.fit).tolist(),
                  "upper": np.asarray(answer.certificate.upper).tolist()}))
"""


def start(body, devices, before="", *words):
    """A process with so many CPU devices."""
    environment = os.environ | {
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "PYTHONPATH": os.pathsep.join(map(str, (zoo.ROOT, zoo.ROOT / "tests"))),
        "JAX_PLATFORMS": "cpu",
        # XLA's threads: with as many devices, batches of Cholesky factors wait for ever.
        "NPROC": str(devices + 2),
    }
    code = PREAMBLE.format(before=before) + body + REPORT
    return subprocess.Popen(
        [sys.executable, "-c", code, *words],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def answers(process, timeout=300):
    try:
        out, errors = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    assert process.returncode == 0, errors
    return json.loads(out.splitlines()[-1])


def assert_single_device(found, lams):
    assert found["status"] == [0] * len(lams)
    for k, lam in enumerate(lams):
        answer = jr.solve(GENERIC.program, lam)
        np.testing.assert_allclose(found["upper"][k], answer.certificate.upper, rtol=1e-9)
        np.testing.assert_allclose(found["fit"][k], answer.fit, atol=1e-6)


@pytest.mark.slow
def test_lams_over_eight_devices():
    body = """
assert jax.device_count() == 8
mesh = jax.make_mesh((8,), ("lams",))
answer = jr.solve_grid(program, lams, mesh=mesh)
"""
    assert_single_device(answers(start(body, 8)), LAMS)


@pytest.mark.slow
def test_lams_over_two_devices_in_batches():
    # Three lams a device, two at a time: the last batch of a device is not full.
    body = """
mesh = jax.make_mesh((2,), ("lams",))
answer = jr.solve_grid(program, lams, mesh=mesh, lam_batch_size=2)
"""
    assert_single_device(answers(start(body, 2), timeout=150), LAMS)


COLLECTIVES = (
    "all-reduce", "all-gather", "all-to-all", "collective-permute", "collective-broadcast",
    "reduce-scatter", "ragged-all-to-all",
)  # fmt: skip


def collectives(text):
    """Computations of an HLO module with a collective, and those that a loop reaches."""
    bodies = dict(re.findall(r"^(?:ENTRY )?%([\w.\-]+) [^\n]*\{\n(.*?)^\}", text, re.M | re.S))
    called = {
        name: set(re.findall(r"%([\w.\-]+)", body)) & bodies.keys() for name, body in bodies.items()
    }
    reached, new = set(), set(re.findall(r"(?:body|condition)=%([\w.\-]+)", text))
    while new:
        reached |= new
        new = set().union(*(called[name] for name in new)) - reached
    operation = re.compile(rf" (?:{'|'.join(COLLECTIVES)})(?:-start)?\(")
    return {name for name, body in bodies.items() if operation.search(body)}, reached


def test_collectives_are_found_where_they_are():
    text = """
%add (a: f32[], b: f32[]) -> f32[] {
  ROOT %sum = f32[] add(%a, %b)
}

%inner (p: f32[2]) -> f32[2] {
  ROOT %r = f32[2]{0} all-reduce(%p), to_apply=%add
}

%step.1 (p: f32[2]) -> f32[2] {
  ROOT %c = f32[2]{0} call(%p), to_apply=%inner
}

%going (p: f32[2]) -> pred[] {
  ROOT %t = pred[] constant(true)
}

ENTRY %main (p: f32[2]) -> f32[4] {
  %w = f32[2]{0} while(%p), condition=%going, body=%step.1
  ROOT %g = f32[4]{0} all-gather(%w), dimensions={0}
}
"""
    assert collectives(text) == ({"inner", "main"}, {"inner", "step.1", "going", "add"})


@pytest.mark.slow
@pytest.mark.parametrize("batch", [None, 2])
def test_no_loop_holds_a_collective(batch, tmp_path):
    body = f"""
from pathlib import Path
from jaxrelu.paths import batches
from jaxrelu.programs.sharding import automatic
from jaxrelu.paths.checks import checked_solver, step_limit
from jaxrelu.solvers.base import tolerances
mesh = automatic(jax.make_mesh((8,), ("lams",)))
solver = checked_solver(program, None)
fixed = (tolerances(program, None, None), step_limit(solver, None), None, solver)
spread = batches.mesh_function(mesh, {batch})
lowered = spread.lower(program, np.repeat(lams, 8), *fixed)
Path(sys.argv[1]).write_text(lowered.compile().as_text())
answer = jr.solve_grid(program, lams[:1], mesh=mesh)
"""
    target = tmp_path / "hlo.txt"
    assert_single_device(answers(start(body, 8, "", str(target))), LAMS[:1])
    found, in_loops = collectives(target.read_text())
    assert found  # the answers are gathered at the end
    assert len(in_loops) > 10
    assert not found & in_loops


@pytest.mark.slow
def test_samples_over_eight_devices():
    body = """
spread = jr.shard_samples(program, jax.make_mesh((8,), ("samples",)))
assert len(spread.X.sharding.device_set) == 8
answer = jax.tree.map(lambda a: a[None], jr.solve(spread, lams[3]))
"""
    assert_single_device(answers(start(body, 8)), LAMS[3:4])


MANY = """
rng = np.random.default_rng(0)
X = rng.standard_normal((8320, 4))
y = np.maximum(X @ [1.0, 0.5, 0.0, 0.0], 0) - np.maximum(X @ [0.0, 0.0, 1.0, -1.0], 0)
program = jr.ConvexProgram(X, y, jr.sample_patterns(jax.random.key(0), X, 6))
lam = 0.2 * float(jr.lambda_max(program))
"""


@pytest.mark.slow
def test_very_many_samples_over_four_devices():
    # Beyond 8192 samples the cones are worked on through their nearest rows, gathered by index.
    body = f"""{MANY}
spread = jr.shard_samples(program, jax.make_mesh((4,), ("samples",)))
alone, spread = jr.solve(program, lam), jr.solve(spread, lam)
assert len(spread.fit.sharding.device_set) == 4
np.testing.assert_allclose(alone.certificate.upper, spread.certificate.upper, rtol=1e-9)
np.testing.assert_allclose(alone.fit, spread.fit, atol=1e-5)
answer = jax.tree.map(lambda a: a[None], spread)
"""
    assert answers(start(body, 4))["status"] == [0]


@pytest.mark.slow
def test_lams_over_two_processes():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    before = f"""
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize("localhost:{port}", 2, int(sys.argv[1]))
"""
    body = """
assert jax.device_count() == 4 and jax.local_device_count() == 2
answer = jr.solve_grid(program, lams, mesh=jax.make_mesh((4,), ("lams",)))
"""
    both = [start(body, 2, before, str(rank)) for rank in range(2)]
    for process in both:
        assert_single_device(answers(process), LAMS)


def test_samples_that_do_not_divide():
    import jax

    mesh = jax.make_mesh((1,), ("samples",))
    same = jr.shard_samples(GENERIC.program, mesh)
    np.testing.assert_array_equal(same.X, GENERIC.program.X)

    three = jax.sharding.Mesh(np.repeat(jax.devices(), 3), ("samples",))
    with pytest.raises(ValueError, match="32 samples do not divide over 3 devices.*1 zero rows"):
        jr.shard_samples(GENERIC.program, three)
