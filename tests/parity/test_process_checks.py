"""Training by two processes on each engine, compared with the reference's training in one."""

import pytest

from common.interface import Backend
from common.parity.checks.processes import CASES, process_checks


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_processes_train_as_the_reference_does(backend: Backend):
    engine = backend.framework.engine
    if engine is None:
        pytest.skip(f"{backend.title} has no engine for several processes")
    results = list(process_checks(backend, 0))
    assert [result.sentence() for result in results if not result.passed] == []
    checked = {result.check.rpartition(":")[0] for result in results}
    assert checked == {
        case.name for case in CASES if not (case.synchronised and engine.no_sync_batch_norm)
    }
