"""`run.py check-submission`: check whether the competition would accept a submission, and score it if possible."""

from common.config import CheckSubmissionConfig
from common.datasets.submission import check_submission
from common.interface import Registry
from common.system.console import PlainConsole


def run(config: CheckSubmissionConfig, registry: Registry) -> int:  # noqa: ARG001 - as every command
    """Check the submission, print the report, and return the exit code."""
    assert config.data_dir is not None  # --data-dir is required
    report = check_submission(config.submission, config.data_dir)
    PlainConsole().print(f"{config.submission} would be accepted: {report}", soft_wrap=True)
    return 0
