r"""An encoder-decoder transformer for pairs of sentences.

.. math:: \text{logits}_{it} = E\,\operatorname{dec}\big(\sqrt d\,E_{y_{i1}, \dots, y_{it}} + P,\; \operatorname{enc}(\sqrt d\,E_{x_i} + P)\big)_t

with one embedding :math:`E` of shape (V, d) for both languages and the output, and sinusoidal positions :math:`P`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ... import _checks
from ..data.bytepairs import BEGIN, END, PAD
from ..data.tokens import longest

__all__ = ["Seq2Seq", "seq2seq"]

INPUTS = ("source", "target_in")
POSITIONS = 512  # the least that there are, so that a translation may be longer than what was trained on


class Seq2Seq(nn.Module):
    r"""Layers of ``torch.nn.Transformer`` with the norms first, dropout in each, and one embedding that is also the output layer.

    Padding is seen by nobody: a sample has the same logits whatever columns stand behind it. Attention is computed by torch's own formula, and not by a fused
    kernel: a GPU adds in the same order each time, and second derivatives exist.

    Args:
        vocabulary: number of tokens; 0 is padding, 1 begins a sentence and 2 ends it.
        width: of the embedding, a multiple of ``heads`` and even.
        heads: of each attention.
        layers: of the encoder, and as many of the decoder.
        hidden: units between the two linear layers of each block.
        dropout: in training, in [0, 1).
        positions: the longest sentence.

    Source:
        Vaswani et al. (2017); the norms before each block as in Xiong et al. (2020).

    Example:
        >>> net = Seq2Seq(20, width=8, heads=2, layers=1, hidden=16)
        >>> net(torch.tensor([[5, 6, 2]]), torch.tensor([[1, 7]])).shape
        torch.Size([1, 2, 20])
    """

    def __init__(
        self, vocabulary: int, width: int = 256, heads: int = 4, layers: int = 3, hidden: int = 1024, dropout: float = 0.1, positions: int = POSITIONS
    ):
        super().__init__()
        vocabulary, width, heads, layers, hidden, positions = (
            _checks.whole(name, value) for name, value in (
                ("vocabulary", vocabulary), ("width", width), ("heads", heads), ("layers", layers), ("hidden", hidden), ("positions", positions),
            )
        )  # fmt: skip
        if vocabulary <= END:
            raise ValueError(f"vocabulary must be at least {END + 1}, for padding, beginning and end; got {vocabulary}")
        if width % heads or width % 2:
            raise ValueError(f"width must be even and a multiple of heads = {heads}, got {width}")
        options = {"dropout": _checks.fraction("dropout", dropout), "batch_first": True, "norm_first": True}
        self.embedding = nn.Embedding(vocabulary, width)
        self.drop = nn.Dropout(dropout)
        encoding, decoding = (kind(width, heads, hidden, **options) for kind in (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer))
        self.encoder = nn.TransformerEncoder(encoding, layers, nn.LayerNorm(width), enable_nested_tensor=False)
        self.decoder = nn.TransformerDecoder(decoding, layers, nn.LayerNorm(width))
        for weight in self.parameters():
            if weight.ndim > 1:
                nn.init.xavier_uniform_(weight)  # the layers are copies of one until here
        nn.init.normal_(self.embedding.weight, std=width**-0.5)
        self.register_buffer("positions", sinusoids(positions, width), persistent=False)

    def forward(self, source: Tensor, target_in: Tensor) -> Tensor:
        """The scores of the next token at every place.

        Args:
            source: numbers of tokens, shape ``(n, S)``, padded with 0 on the right.
            target_in: those of the translation so far, shape ``(n, L)``, each begun with 1.

        Returns:
            Logits of shape ``(n, L, V)``.
        """
        with sdpa_kernel(SDPBackend.MATH):
            memory, hidden = self._encoded(source)
            ahead = torch.ones(target_in.shape[1], target_in.shape[1], dtype=torch.bool, device=target_in.device).triu(1)
            states = self.decoder(
                self._embedded(target_in), memory, tgt_mask=ahead, tgt_key_padding_mask=target_in == PAD, memory_key_padding_mask=hidden
            )
        return self._scores(states)

    def _encoded(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """What the decoder looks at, and which places of it are padding."""
        hidden = source == PAD
        return self.encoder(self._embedded(source), src_key_padding_mask=hidden), hidden

    def _embedded(self, tokens: Tensor, first: int = 0) -> Tensor:
        last = first + tokens.shape[1]
        if last > len(self.positions):
            raise ValueError(f"sentences must have at most {len(self.positions)} tokens, got {last}")
        return self.drop(math.sqrt(self.positions.shape[1]) * self.embedding(tokens) + self.positions[first:last])

    def _scores(self, states: Tensor) -> Tensor:
        return nn.functional.linear(states, self.embedding.weight)

    @torch.no_grad()
    def decode(self, source: Tensor, most: int | None = None) -> Tensor:
        """Translates greedily: at every place the token of the highest score, the first of equal ones, until the sentence ends.

        Args:
            source: numbers of tokens, shape ``(n, S)``, padded with 0 on the right.
            most: tokens of a translation, its end included; by default twice as many as the longest source has, and 8.

        Returns:
            Numbers of tokens without the beginning, shape ``(n, at most most)``, padded with 0 on the right.

        Example:
            >>> net = Seq2Seq(20, width=8, heads=2, layers=1, hidden=16).eval()
            >>> net.decode(torch.tensor([[5, 6, 2]]), most=4).shape[1] <= 4
            True
        """
        was_training = self.training
        self.eval()
        most = min(_checks.whole("most", 2 * source.shape[1] + 8 if most is None else most), len(self.positions))
        memory, hidden = self._encoded(source)
        said = torch.full((len(source), most), PAD, dtype=torch.int64, device=source.device)
        going, token = torch.arange(len(source), device=source.device), torch.full((len(source), 1), BEGIN, device=source.device)
        seen: list[Tensor | None] = [None] * len(self.decoder.layers)  # what each layer was given at earlier places
        for place in range(most):
            states, seen = self._one_more(token, place, memory, hidden, seen)
            token = END + self._scores(states)[:, :, END:].argmax(-1)  # padding and beginning are no answers
            said[going, place] = token[:, 0]
            goes_on = token[:, 0] != END
            if not goes_on.any():
                break
            going, token, memory, hidden = going[goes_on], token[goes_on], memory[goes_on], hidden[goes_on]
            seen = [part[goes_on] for part in seen]
        self.train(was_training)
        return said[:, : longest(said != PAD)]

    def _one_more(self, token: Tensor, place: int, memory: Tensor, hidden: Tensor, seen: list) -> tuple[Tensor, list]:
        """The state of one more place, shape ``(n, 1, d)``: what the layers of the decoder compute, for the last place alone."""
        states, now = self._embedded(token, place), []
        for layer, before in zip(self.decoder.layers, seen, strict=True):
            now.append(states if before is None else torch.cat([before, states], 1))
            past = layer.norm1(now[-1])
            states = states + layer.self_attn(past[:, -1:], past, past, need_weights=False)[0]
            states = states + layer.multihead_attn(layer.norm2(states), memory, memory, key_padding_mask=hidden, need_weights=False)[0]
            states = states + layer.linear2(layer.activation(layer.linear1(layer.norm3(states))))
        return self.decoder.norm(states), now


def sinusoids(positions: int, width: int) -> Tensor:
    """Sines and cosines of geometrically falling frequencies, shape ``(positions, width)``."""
    rate = torch.exp(torch.arange(0, width, 2) * (-math.log(10_000.0) / width))
    angle = torch.arange(positions).unsqueeze(1) * rate
    return torch.stack([angle.sin(), angle.cos()], -1).reshape(positions, width)


def seq2seq(shape: dict[str, tuple[int, ...]], classes: int, **sizes) -> Seq2Seq:
    """The network for pairs of sentences of a task such as ``parallel:NAME``.

    Args:
        shape: ``{"source": (S,), "target_in": (L,)}``.
        classes: number of tokens.
        sizes: as of :class:`Seq2Seq`.

    Raises:
        TypeError, ValueError: another shape, or an argument out of range.

    Example:
        >>> net = seq2seq({"source": (9,), "target_in": (9,)}, 50, width=8, heads=2, layers=1, hidden=16)
        >>> sum(weight.numel() for weight in net.parameters())
        1936
    """
    if not isinstance(shape, dict) or set(shape) != set(INPUTS):
        raise ValueError(f"shape must be that of pairs of sentences, {{'source': (S,), 'target_in': (L,)}}, for a seq2seq network; got {_checks.shown(shape)}")
    lengths = [_checks.each("shape", shape[name], each_of=_checks.whole, length=1)[0] for name in INPUTS]
    return Seq2Seq(_checks.whole("classes", classes), **{"positions": max(POSITIONS, *lengths), **sizes})
