"""Runs a .tflite file on the float32 values from standard input; without any, gives the sizes of its input and its output."""

import sys

import numpy as np
from ai_edge_litert.interpreter import Interpreter

interpreter = Interpreter(sys.argv[1])
interpreter.allocate_tensors()
(given,), (made,) = interpreter.get_input_details(), interpreter.get_output_details()
values = np.frombuffer(sys.stdin.buffer.read(), "<f4")
if values.size:
    interpreter.set_tensor(given["index"], values.reshape(given["shape"]))
    interpreter.invoke()
    answer = interpreter.get_tensor(made["index"])
else:
    answer = np.array([np.prod(given["shape"]), np.prod(made["shape"])])
sys.stdout.buffer.write(answer.astype("<f4").tobytes())
