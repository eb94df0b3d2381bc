"""A learning rate schedule that starts again when a training is resumed."""


def trap(saved, trainer, new_schedule):
    """Return the schedule of a resumed training."""
    trainer.load_state_dict(saved["trainer"])
    return new_schedule(trainer)


def fixed(saved, trainer, new_schedule):
    """Return the schedule of a resumed training."""
    schedule = new_schedule(trainer)  # sets the first rate
    trainer.load_state_dict(saved["trainer"])
    schedule.load_state_dict(saved["schedule"])
    return schedule
