"""Experiments from configs: what ``torchrl-ob train advantage=ob env.scenario=balance`` runs.

A config of ``configs/`` is built into TorchRL's ``PPOTrainer``
(:func:`~torchrl_ob.experiments.build.build`) and run
(:func:`~torchrl_ob.experiments.run.run`). Needs the ``experiments`` extra.
"""
