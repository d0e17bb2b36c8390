"""Experiments from configs: what ``torchrl-ob train advantage=ob env.scenario=balance`` runs.

A config of ``configs/`` is built into TorchRL's ``PPOTrainer``
(:func:`~torchrl_ob.experiments.building.build`) and run
(:func:`~torchrl_ob.experiments.running.run`). Needs the ``experiments`` extra.
"""
