"""Save a training after each epoch, and resume it, with PyTorch's own means."""

import torch
from torch import nn

from docs.examples.resume_batches import batches


def new_training():
    """Return a network and its optimizer."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))
    return net, torch.optim.Adam(net.parameters(), lr=0.01)


def save(folder, net, trainer, num_epochs):
    """Save a training after some epochs."""
    state = {"net": net.state_dict(), "trainer": trainer.state_dict(), "epochs": num_epochs}
    torch.save(state, folder / "new.pt")
    (folder / "new.pt").replace(folder / "last.pt")  # only a complete file has this name


def restore(folder, net, trainer):
    """Restore the last saved state, if any; return the number of finished epochs."""
    path = folder / "last.pt"
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    net.load_state_dict(state["net"])
    trainer.load_state_dict(state["trainer"])
    return state["epochs"]


def train(folder, num_epochs):
    """Train, or go on with the training in a folder; return the network."""
    net, trainer = new_training()
    for epoch in range(restore(folder, net, trainer), num_epochs):
        for X, y in batches(epoch):
            trainer.zero_grad()
            l = nn.functional.cross_entropy(net(torch.from_numpy(X)), torch.from_numpy(y))
            l.backward()
            trainer.step()
        save(folder, net, trainer, epoch + 1)
    return net
