"""Distances as modules, and the losses made of them and of likelihoods."""

from __future__ import annotations


