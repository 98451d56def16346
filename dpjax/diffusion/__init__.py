"""The paper's equations, in the paper's letters, numbered through the whole package.

(1)       `schedules`: the data and the noise at each level
(2), (3)  `parameterization`: what the network predicts
(4)-(6)   `samplers`: one step from a level to the next
(7)       `sampling`: the loop over all steps, and the warm start
"""
