"""What single channels stand for: relevance through them alone, and the samples in which they matter most.

| file | question |
|---|---|
| `channels` | which channels of an entry did the network use? |
| `conditions` | where in the input did it use them? |
| `samples` | in which samples does a channel matter most? |
"""

from .channels import Channels, channel_relevance, top_channels
from .conditions import conditional
from .samples import TopSamples, stored_samples, top_samples

__all__ = [
    "Channels", "TopSamples", "channel_relevance", "conditional", "stored_samples", "top_channels", "top_samples",
]  # fmt: skip
