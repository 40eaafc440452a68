"""Deep mutual learning: networks that teach each other from scratch (Zhang et al., CVPR 2018).

    L_k = CE(y, p_k) + 1/(K-1) sum_{l != k} KL(p_l || p_k)

Symbols: p_k = softmax of the logits of player k ("student", "peer", "peer2" ...), p_l those of a peer.
The networks play one after another on the same batch; a peer's answers are fixed for the one that plays, and made
afresh after each step, so the second network learns from what the first has just become.

Reading: written from general knowledge of the method, not from its text. Departure: who does not play is in
evaluation mode (BatchNorm answers with its running statistics, and they do not move), where public code leaves all
networks in training mode.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from hf_transinv.augment.policies.policy import Policy, PolicyDraws, apply_all, draw_all
from hf_transinv.divergences import cross_entropy, kl_divergence
from hf_transinv.errors import InputError
from hf_transinv.models.classifier import Classifier
from hf_transinv.objectives.objective import Objective
from hf_transinv.objectives.parts import Parts
from hf_transinv.objectives.passes import Passes
from hf_transinv.objectives.turns import Batch, Turn

CITATION = """@inproceedings{zhang2018deep,
  title     = {Deep Mutual Learning},
  author    = {Zhang, Ying and Xiang, Tao and Hospedales, Timothy M. and Lu, Huchuan},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)},
  year      = {2018}
}"""


class MutualLearning(Objective):
    """Each network k in its turn: min over theta_k of mean_i L_k.

    Args:
        networks: at least two, of any architectures; the first is "student", whose steps are counted and which is
            exported.
        policies: applied one after another, drawn anew for each player; all networks see what the player sees.
        label_smoothing: of the cross-entropies, in [0, 1).

    Raises:
        InputError: fewer than two networks, one of them twice, or other numbers of classes.
    """

    name = "mutual"
    title = "mutual learning"
    summary = "It was trained together with other networks, each learning from the others (deep mutual learning)."
    citation = CITATION
    passes: ClassVar = {("student", "peer"): Passes(8)}  # each trains beside the other's answer, made without gradient
    own_options = ("peers",)

    def __init__(
        self, networks: Sequence[Classifier], policies: Sequence[Policy] = (), label_smoothing: float = 0.0
    ) -> None:
        self.players = self._students = name_networks(networks)
        self.turns = (tuple(self.players),)
        self.policies = tuple(policies)
        self.label_smoothing = label_smoothing

    @classmethod
    def build(cls, student: Classifier, parts: Parts) -> "MutualLearning":
        return cls([student, *parts.peers(student)], parts.policies, parts.label_smoothing)

    def passes_of(self, turn: Turn) -> Passes:
        networks = len(self.players)
        return Passes(networks * (3 + networks - 1))

    @property
    def students(self) -> Mapping[str, Classifier]:
        return self._students

    def draw(self, player: str, shape: tuple[int, ...], generator: torch.Generator) -> PolicyDraws:
        return draw_all(self.policies, shape, generator)

    def loss(self, player: str, nets: Mapping[str, nn.Module], batch: Batch, draws: PolicyDraws) -> dict[str, Tensor]:
        images = apply_all(self.policies, batch.images, draws)
        logits, share = nets[player](images), batch.share
        with torch.no_grad():
            peers = [nets[name](images) for name in self.players if name != player]
        labelled = cross_entropy(logits, batch.labels, self.label_smoothing, batch.class_weights).sum() * share
        of_peers = (kl_divergence(peer, logits).sum() for peer in peers)
        mimicry = sum(of_peers, logits.new_zeros(())) * (share / len(peers))
        return {
            "total": labelled + mimicry,
            "cross_entropy": labelled.detach(),
            "mimicry": mimicry.detach(),
        }


def name_networks(networks: Sequence[Classifier]) -> dict[str, Classifier]:
    """Networks that train together, by name: "student", "peer", "peer2" ...

    Raises:
        InputError: fewer than two, one of them twice, or other numbers of classes.
    """
    if len(networks) < 2 or len(set(map(id, networks))) < len(networks):
        raise InputError(f"networks that learn together: expected two or more different ones, given {len(networks)}")
    classes = [network.num_classes for network in networks]
    if len(set(classes)) > 1:
        raise InputError(
            f"networks that learn together compare their answers: expected as many classes, given {classes}"
        )
    names = ["student", "peer", *(f"peer{index}" for index in range(2, len(networks)))]
    return dict(zip(names, networks, strict=True))
