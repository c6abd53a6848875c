import torch
import trine.training.embedding as E
E.CHUNK_COST; p=E._partition; E._partition=lambda l,b,cost: p(l,b,cost=0)
