"""Evaluation results for people: tables, pictures, pages and model cards."""
