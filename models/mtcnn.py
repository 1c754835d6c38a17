"""MTCNN: three small networks in a cascade find faces and five points on each.

Zhang et al., "Joint Face Detection and Alignment Using Multitask Cascaded Convolutional Networks",
2016. P-Net slides over an image pyramid and proposes boxes, R-Net sorts them, O-Net refines them
and adds the points. The weights are those that the PyPI package `mtcnn` ships.

They learned upright faces. They also find some faces that lie on their side or head, and put the points of those where
an upright face would have them: an eye on the mouth. Two things give such a face away. O-Net is surer of it when it is
turned; and in its mirror image O-Net finds other points, while those of an upright face are mirrored, too. So each face
gets evidence for standing upright, in logits, from what O-Net says of its box:

    evidence = sureness as it stands − that in the best of the three turns − 20 × disagreement with its mirror image

A sureness is the logit of a face, averaged over the box and its mirror image. The disagreement is the mean distance
between the five points and those found in the mirror image, relative to their spread (root mean square distance from
their centre). Faces that are plainly upright need not be looked at in the three turns; their evidence is infinite.
Where the evidence leaves doubt, a picture is searched in all four turns, and the turn with the most evidence is its
right way up.
"""

import hashlib
import importlib.util
import io
from pathlib import Path
from typing import NamedTuple

import cv2
import joblib
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import batched_nms, box_iou, roi_align

from models.faces import Faces
from utils.alignment import TEMPLATE_SIZE, alignment_transform
from utils.errors import UserError

#: joblib files are pickles, which can run code: only these very files are opened.
_WEIGHTS_SHA256 = {
    "pnet.lz4": "ea6b0c3e685ebee3165326ad6484acc95f2ef78f1c94fbf40a55704fa989f7b5",
    "rnet.lz4": "cb00e6460f3c98b0bfafaba3c0a0ded4bdf6e62cee7174d969e8670d7e757fee",
    "onet.lz4": "94f6ea2f4cf985275ee958cdd762d17b6009348a4fb9d8c6be39ba73ffd22ca3",
}


#: Longest and shortest side of the picture that is searched, in pixels.
_LONGEST_SIDE, _SHORTEST_SIDE = 1024, 96

#: Face probabilities that a candidate of P-Net, R-Net and O-Net must exceed.
_THRESHOLDS = (0.6, 0.7, 0.7)

#: Side of the smallest face looked for, in pixels, and ratio of neighbouring scales.
_SMALLEST_FACE, _PYRAMID_FACTOR = 20.0, 0.709

# The limits of the evidence were set on 87 video frames of as many people (frame 0 of every fourth) and 120 pictures of
# characters, seen upright and in three turns. 204 upright faces were found, and 178 lying ones with wrong points.

#: Logits that a disagreement of 1 takes off. It is 0.06 for the median upright face and 0.4 for a lying one. At 20
#: and at 25 the evidence of the two kinds does not overlap; at 15 and below it does.
_DISAGREEMENT = 20.0

#: Evidence that an upright face must exceed. Upright faces have −2.8 or more (one of tests/test_alignment.py has −4.0);
#: 174 of the lying ones have less than −5. The others have −3.1 or less, and lose to the same face in the right turn.
_UPRIGHT = -5.0

#: Evidence that settles which way up a picture is: no other turn need be searched, and no turned copy counts with less.
#: All but 1 of the upright frames have it. Below it lie faces that are found by mistake: in 2 of 348 frames whose faces
#: were painted over, turned copies had some with −0.1 and −1.0.
_CERTAIN = 0.0

#: Logits of both looks minus disagreement, of a face that is plainly upright: 166 of the upright faces, 86 of the 87
#: in frames. Lying faces have 5.9 or less.
_PLAIN = 8.0

#: The order of the five points in a mirror image.
_MIRRORED = [1, 0, 2, 4, 3]

#: Fraction of the smaller of two boxes that, covered by a better one, makes it the same face.
_NESTED = 0.7


class PNet(nn.Module):
    """Proposals, fully convolutional: (N, 3, H, W) → face logits (N, 2, h, w) and box offsets (N, 4, h, w).

    One output cell sees 12×12 pixels; cells are 2 pixels apart.
    """

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 10, 3),
            nn.PReLU(10),
            nn.MaxPool2d(2, 2, ceil_mode=True),
            nn.Conv2d(10, 16, 3),
            nn.PReLU(16),
            nn.Conv2d(16, 32, 3),
            nn.PReLU(32),
        )
        self.box = nn.Conv2d(32, 4, 1)
        self.face = nn.Conv2d(32, 2, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.features(x)
        return self.face(x), self.box(x)


class _Flatten(nn.Module):
    """(N, C, H, W) → (N, W·H·C), the order in which the dense layers' weights are stored."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 3, 2, 1).flatten(1)


class RNet(nn.Module):
    """Refinement: patches (N, 3, 24, 24) → face logits (N, 2) and box offsets (N, 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 28, 3),
            nn.PReLU(28),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            nn.Conv2d(28, 48, 3),
            nn.PReLU(48),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(48, 64, 2),
            nn.PReLU(64),
            _Flatten(),
            nn.Linear(576, 128),
            nn.PReLU(128),
        )
        self.box = nn.Linear(128, 4)
        self.face = nn.Linear(128, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.features(x)
        return self.face(x), self.box(x)


class ONet(nn.Module):
    """Output: patches (N, 3, 48, 48) → face logits (N, 2), box offsets (N, 4), points (N, 10): five x, five y."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 32, 3),
            nn.PReLU(32),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            nn.Conv2d(32, 64, 3),
            nn.PReLU(64),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(64, 64, 3),
            nn.PReLU(64),
            nn.MaxPool2d(2, 2, ceil_mode=True),
            nn.Conv2d(64, 128, 2),
            nn.PReLU(128),
            _Flatten(),
            nn.Linear(1152, 256),
            nn.PReLU(256),
        )
        self.box = nn.Linear(256, 4)
        self.points = nn.Linear(256, 10)
        self.face = nn.Linear(256, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.features(x)
        return self.face(x), self.box(x), self.points(x)


class FaceDetector(nn.Module):
    """The cascade.

    Raises:
        UserError: the package `mtcnn` or one of its weight files is missing or not the expected one.
    """

    def __init__(self) -> None:
        super().__init__()
        self.pnet, self.rnet, self.onet = PNet(), RNet(), ONet()
        _load_keras(self.pnet, "pnet.lz4", ("box", "face"))
        _load_keras(self.rnet, "rnet.lz4", ("box", "face"))
        _load_keras(self.onet, "onet.lz4", ("box", "points", "face"))
        self.eval().requires_grad_(False)

    @torch.inference_mode()
    def detect(self, pictures: Tensor) -> list[Faces]:
        """Find the upright faces in a batch of pictures of one size; the pictures are not turned.

        Args:
            pictures: (N, 3, H, W) uint8 RGB.

        Returns:
            N `Faces`, in the pictures' pixels (a pixel's centre is at whole coordinates).
        """
        device = self.pnet.box.weight.device
        count = len(pictures)
        pixels = (pictures.to(device, torch.float32) - 127.5) / 128
        owner, boxes = self._propose(pixels)
        owner, boxes = self._refine(pixels, owner, boxes)
        owner, *found = self._output(pixels, owner, boxes)
        return [_faces_of(*(values[owner == i] for values in found)) for i in range(count)]

    def find(self, picture: np.ndarray) -> Faces:
        """Find the faces in one picture (H, W, 3) uint8 RGB of any size, in its pixels.

        A large picture is searched at 1,024 pixels on its longer side, a very small one enlarged. A picture that lies
        on its side or head is turned for the search.
        """
        return self.find_all([picture])[0]

    def find_all(self, pictures: list[np.ndarray]) -> list[Faces]:
        """`find` for several pictures; those of one size go through the networks together."""
        searched = [_to_searched_size(picture) for picture in pictures]
        found: list[Faces | None] = [None] * len(pictures)
        for shape in dict.fromkeys(s.shape for s in searched):
            together = [i for i, s in enumerate(searched) if s.shape == shape]
            batch = torch.from_numpy(np.stack([searched[i] for i in together])).permute(0, 3, 1, 2)
            for i, faces in zip(together, self._detect_any_way_up(batch), strict=True):
                found[i] = faces.scaled(np.divide(pictures[i].shape[1::-1], shape[1::-1]).astype(np.float32))
        return [faces for faces in found if faces is not None]

    def align(self, photo: np.ndarray, which: str) -> tuple[np.ndarray | None, str]:
        """Where the face of a photo lies.

        Args:
            photo: (H, W, 3) uint8 RGB.
            which: "one" or "largest", as `Faces.choose`.

        Returns:
            The (2, 3) transform to the aligned 256×256 frame, None where no face is chosen, and a status.
        """
        faces = self.find(photo)
        status, index = faces.choose(which)
        if index is None:
            return None, status
        return alignment_transform(faces.points[index], TEMPLATE_SIZE), status

    def _detect_any_way_up(self, pictures: Tensor) -> list[Faces]:
        """`detect`, and where that leaves doubt, also in copies turned by 90°, 180° and 270°.

        The faces of the turn with the most evidence count, in the pixels of the pictures as they came.
        """
        found = self.detect(pictures)
        doubtful = [i for i, faces in enumerate(found) if faces.most_evidence < _CERTAIN]
        if not doubtful:
            return found

        height, width = pictures.shape[2:]
        for quarters in (1, 2, 3):
            copies = torch.rot90(pictures[doubtful], quarters, (2, 3))
            for i, faces in zip(doubtful, self.detect(copies), strict=True):
                if faces.most_evidence > max(found[i].most_evidence, _CERTAIN):
                    found[i] = faces.turned_back(quarters, width=width, height=height)
        return found

    def _propose(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes (K, 4) that P-Net finds at all scales, and which picture (K,) each is of."""
        height, width = pixels.shape[-2:]
        owners, boxes, scores = [], [], []
        scale = 12 / _SMALLEST_FACE
        while min(height, width) * scale >= 12:
            size = (round(height * scale), round(width * scale))
            owner, box, score = self._propose_at(pixels, size)
            if len(owner):
                kept = batched_nms(box, score, owner, 0.5)
                owners.append(owner[kept])
                boxes.append(box[kept])
                scores.append(score[kept])
            scale *= _PYRAMID_FACTOR

        if not owners:
            none = pixels.new_zeros(0)
            return none.long(), none.reshape(0, 4)
        owner, box, score = torch.cat(owners), torch.cat(boxes), torch.cat(scores)
        kept = batched_nms(box, score, owner, 0.7)
        return owner[kept], box[kept]

    def _propose_at(self, pixels: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        """Pictures (K,), boxes (K, 4) and scores (K,) of the proposals at one scale, pictures resized to `size`."""
        level = F.interpolate(pixels, size, mode="bilinear", antialias=True, align_corners=False)
        logits, offsets = self.pnet(level)
        probability = logits.softmax(1)[:, 1]
        owner, row, column = torch.nonzero(probability > _THRESHOLDS[0], as_tuple=True)

        # A cell sees 12×12 pixels; cells are 2 pixels apart.
        corner = torch.stack([column, row, column, row], 1) * 2.0
        corner[:, 2:] += 12
        height, width = pixels.shape[-2:]
        back = corner.new_tensor([width / size[1], height / size[0]] * 2)
        box = (corner + 12 * offsets[owner, :, row, column]) * back
        return owner, box, probability[owner, row, column]

    def _refine(self, pixels: Tensor, owner: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        boxes = _square(boxes)
        logits, offsets = self.rnet(_patches(pixels, owner, boxes, 24))
        score = logits.softmax(1)[:, 1]
        boxes = boxes + offsets * _sides(boxes)
        passed = score > _THRESHOLDS[1]
        owner, boxes, score = owner[passed], boxes[passed], score[passed]
        kept = batched_nms(boxes, score, owner, 0.7)
        return owner[kept], boxes[kept]

    def _output(self, pixels: Tensor, owner: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """The upright faces: which picture each is of, its box, score, points and evidence, best score first."""
        # Refine the boxes.
        boxes = _square(boxes)
        logits, offsets, _ = self.onet(_patches(pixels, owner, boxes, 48))
        score, first = logits.softmax(1)[:, 1], _face_logit(logits)
        boxes = boxes + offsets * _sides(boxes)
        passed = score > _THRESHOLDS[2]
        owner, boxes, score, first = owner[passed], boxes[passed], score[passed], first[passed]
        kept = batched_nms(boxes, score, owner, 0.7)
        owner, boxes, score, first = owner[kept], boxes[kept], score[kept], first[kept]

        # The points are read in a second look at the refined box: on real frames that takes their
        # error from 4.0 to 3.8 px. A third look now and then runs away.
        square = _square(boxes)
        patches = _patches(pixels, owner, square, 48)
        look = self._look(patches)
        # O-Net learned points as whole pixels in crops by whole pixels: no half pixel to take off.
        points = look.points * _sides(square)[:, None, :2] + square[:, None, :2]

        # Leave out what does not stand upright.
        evidence = self._weigh(patches, look, first)
        upright = evidence > _UPRIGHT
        return owner[upright], boxes[upright] - 0.5, score[upright], points[upright], evidence[upright]

    def _look(self, patches: Tensor) -> "_Look":
        """What O-Net says of patches (K, 3, 48, 48) and their mirror images."""
        logits, _, points = self.onet(torch.cat([patches, patches.flip(3)]))
        sureness = _face_logit(logits).reshape(2, len(patches)).mean(0)

        straight, mirrored = points.reshape(2, len(patches), 2, 5).transpose(2, 3)
        mirrored = torch.stack([1 - mirrored[:, _MIRRORED, 0], mirrored[:, _MIRRORED, 1]], -1)
        spread = (straight - straight.mean(1, keepdim=True)).square().sum(2).mean(1).sqrt()
        apart = (straight - mirrored).norm(dim=2).mean(1)
        return _Look(sureness, straight, apart / spread.clamp(min=1e-6))

    def _weigh(self, patches: Tensor, look: "_Look", first: Tensor) -> Tensor:
        """The evidence (K,) that faces stand upright.

        Args:
            patches: (K, 3, 48, 48), their refined boxes.
            look: what O-Net says of these.
            first: (K,) logits of a face in the boxes before they were refined.
        """
        agreed = look.sureness - _DISAGREEMENT * look.disagreement
        evidence = torch.full_like(agreed, torch.inf)
        doubtful = first + agreed < _PLAIN
        if doubtful.any():
            copies = torch.cat([torch.rot90(patches[doubtful], quarters, (2, 3)) for quarters in (1, 2, 3)])
            turned = self._look(copies).sureness.reshape(3, -1).amax(0)
            evidence[doubtful] = agreed[doubtful] - turned
        return evidence


class _Look(NamedTuple):
    """What O-Net says of patches."""

    sureness: Tensor  #: (K,) logits of a face
    points: Tensor  #: (K, 5, 2) x y, as fractions of the patch
    disagreement: Tensor  #: (K,) of the points with those in the mirror image


def _to_searched_size(picture: np.ndarray) -> np.ndarray:
    height, width = picture.shape[:2]
    scale = min(1.0, _LONGEST_SIDE / max(height, width))
    if min(height, width) < _SHORTEST_SIDE:
        scale = min(_SHORTEST_SIDE / min(height, width), _LONGEST_SIDE / max(height, width))
    if scale == 1:
        return picture
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)


def _faces_of(boxes: Tensor, scores: Tensor, points: Tensor, evidence: Tensor) -> Faces:
    kept = _suppress_nested(boxes)  # boxes come best score first from NMS
    return Faces(*(values[kept].cpu().numpy() for values in (boxes, scores, points, evidence)))


def _suppress_nested(boxes: Tensor) -> list[int]:
    """Indices of boxes (K, 4), best first, of which no better one covers more than `_NESTED` of the smaller area."""
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    iou = box_iou(boxes, boxes)
    intersection = iou / (1 + iou) * (area[:, None] + area)
    over_smaller = intersection / torch.minimum(area[:, None], area).clamp(min=1e-6)
    kept: list[int] = []
    for i in range(len(boxes)):
        if not any(over_smaller[i, k] > _NESTED for k in kept):
            kept.append(i)
    return kept


def _face_logit(logits: Tensor) -> Tensor:
    """(N, 2) logits of "no face" and "face" → (N,) logit of the probability of a face."""
    return logits[:, 1] - logits[:, 0]


def _sides(boxes: Tensor) -> Tensor:
    """Width, height, width, height of each box: (K, 4) → (K, 4)."""
    return (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)


def _square(boxes: Tensor) -> Tensor:
    """The boxes widened to squares about their centres."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]).amax(1, keepdim=True) / 2
    return torch.cat([centre - half, centre + half], 1)


def _patches(pixels: Tensor, owner: Tensor, boxes: Tensor, size: int) -> Tensor:
    """(K, 3, size, size) patches, each output pixel the mean over its share of the box."""
    rois = torch.cat([owner[:, None].to(boxes.dtype), boxes], 1)
    return roi_align(pixels, rois, size, aligned=True)


def _load_keras(network: PNet | RNet | ONet, file: str, heads: tuple[str, ...]) -> None:
    """Fill a network from a joblib list of Keras arrays: for each layer its kernel, its bias, then PReLU's slopes."""
    arrays = iter(_read_weights(file))
    layers = [m for m in network.features if isinstance(m, (nn.Conv2d, nn.Linear, nn.PReLU))]
    for layer in layers + [getattr(network, head) for head in heads]:
        weight = torch.from_numpy(next(arrays))
        if isinstance(layer, nn.PReLU):
            layer.weight.data.copy_(weight.flatten())
            continue
        # Keras stores convolutions (h, w, in, out) and dense layers (in, out).
        layer.weight.data.copy_(weight.permute(3, 2, 0, 1) if weight.ndim == 4 else weight.T)
        layer.bias.data.copy_(torch.from_numpy(next(arrays)))


def _read_weights(file: str) -> list[np.ndarray]:
    # Importing the package would pull in TensorFlow; its files are all that is needed.
    package = importlib.util.find_spec("mtcnn")
    if package is None or not package.submodule_search_locations:
        raise UserError(
            "the package 'mtcnn', whose weights the face detector uses, is not installed. "
            "Run: pip install -r requirements.txt"
        )
    path = Path(package.submodule_search_locations[0]) / "assets" / "weights" / file
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"cannot read the face detector's weights {path}: {error.strerror}. "
            "Run: pip install --force-reinstall mtcnn"
        ) from None
    return _load_known(data, file)


def _load_known(data: bytes, file: str) -> list[np.ndarray]:
    found = hashlib.sha256(data).hexdigest()
    if found != _WEIGHTS_SHA256[file]:
        raise UserError(
            f"the face detector's weights {file} are not the known ones: SHA-256 {found}, expected "
            f"{_WEIGHTS_SHA256[file]}. They were not opened. Run: pip install --force-reinstall 'mtcnn>=1.0,<2'"
        )
    return joblib.load(io.BytesIO(data))
