"""The published ways to train, as functions that return a typed, frozen configuration."""

from trine.tables import Row

RECIPES = {
    "retromae": Row("trine.recipes.retromae:retromae"),
    "retromae_small": Row("trine.recipes.retromae:retromae_small"),
    "dupmae": Row("trine.recipes.retromae:dupmae"),
    "dupmae_small": Row("trine.recipes.retromae:dupmae_small"),
    "e5_pretrain": Row("trine.recipes.e5:e5_pretrain"),
    "e5_pretrain_small": Row("trine.recipes.e5:e5_pretrain_small"),
    "e5_finetune": Row("trine.recipes.e5:e5_finetune"),
    "e5_finetune_small": Row("trine.recipes.e5:e5_finetune_small"),
    "bge_m3_unsupervised": Row("trine.recipes.bge_m3:bge_m3_unsupervised"),
    "bge_m3_unsupervised_small": Row("trine.recipes.bge_m3:bge_m3_unsupervised_small"),
    "bge_m3": Row("trine.recipes.bge_m3:bge_m3"),
    "bge_m3_small": Row("trine.recipes.bge_m3:bge_m3_small"),
    "simcse": Row("trine.recipes.simcse:simcse"),
    "simcse_small": Row("trine.recipes.simcse:simcse_small"),
    "e5_mistral": Row("trine.recipes.e5_mistral:e5_mistral"),
    "e5_mistral_small": Row("trine.recipes.e5_mistral:e5_mistral_small"),
    "llm2vec_mntp": Row("trine.recipes.llm2vec:llm2vec_mntp"),
    "llm2vec_mntp_small": Row("trine.recipes.llm2vec:llm2vec_mntp_small"),
    "llm2vec_simcse": Row("trine.recipes.llm2vec:llm2vec_simcse"),
    "llm2vec_simcse_small": Row("trine.recipes.llm2vec:llm2vec_simcse_small"),
    "llm2vec_supervised": Row("trine.recipes.llm2vec:llm2vec_supervised"),
    "llm2vec_supervised_small": Row("trine.recipes.llm2vec:llm2vec_supervised_small"),
    "distill": Row("trine.recipes.distill:distill"),
    "distill_small": Row("trine.recipes.distill:distill_small"),
    "reranker": Row("trine.recipes.reranker:reranker"),
    "reranker_small": Row("trine.recipes.reranker:reranker_small"),
}
"""`_small` variants run on a laptop in minutes to hours; the others hold the papers' numbers."""

__all__ = ["RECIPES"]
