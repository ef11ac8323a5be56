//! A graph under construction: each call adds an operator or a constant and returns the name of its value.

use super::proto::{Attribute, Dimension, FLOAT, Graph, Node, Shape, Size, Tensor, TensorType, Type, ValueInfo};

/// Nodes and constants so far.
#[derive(Default)]
pub struct Builder {
    graph: Graph,
}

impl Builder {
    /// Adds an operator.
    pub fn op(&mut self, operator: &str, inputs: &[&str]) -> String {
        let output = format!("{}_{}", operator.to_lowercase(), self.graph.node.len());
        self.graph.node.push(Node {
            input: inputs.iter().map(ToString::to_string).collect(),
            name: format!("node_{output}"),
            output: vec![output.clone()],
            op_type: operator.into(),
            attribute: Vec::new(),
        });
        output
    }

    /// Joins values along the second dimension.
    pub fn concat(&mut self, inputs: &[&str]) -> String {
        let output = self.op("Concat", inputs);
        if let Some(node) = self.graph.node.last_mut() {
            node.attribute.push(Attribute { name: "axis".into(), i: Some(1), r#type: Attribute::INT });
        }
        output
    }

    /// Adds a constant; its shape is `dims`, with none for a scalar.
    pub fn constant(&mut self, name: &str, dims: &[usize], values: &[f32]) -> String {
        self.graph.initializer.push(Tensor {
            dims: dims.iter().map(|n| *n as i64).collect(),
            data_type: FLOAT,
            name: name.into(),
            raw_data: values.iter().flat_map(|x| x.to_le_bytes()).collect(),
        });
        name.into()
    }

    /// Adds a scalar constant.
    pub fn scalar(&mut self, value: f32) -> String {
        let name = format!("scalar_{}", self.graph.initializer.len());
        self.constant(&name, &[], &[value])
    }

    /// Adds a vector constant.
    pub fn vector(&mut self, name: &str, values: &[f32]) -> String {
        self.constant(name, &[values.len()], values)
    }

    /// Holds a value between two scalars.
    pub fn clip(&mut self, value: &str, magnitude: f32) -> String {
        let (low, high) = (self.scalar(-magnitude), self.scalar(magnitude));
        self.op("Clip", &[value, &low, &high])
    }

    /// Adds an input of `columns` numbers for each element of the batch.
    pub fn input(&mut self, name: &str, columns: usize, doc: &str) -> String {
        self.graph.input.push(value_info(name, columns, doc));
        name.into()
    }

    /// Gives `value` out as `name`.
    pub fn output(&mut self, value: &str, name: &str, columns: usize, doc: &str) {
        let identity = self.op("Identity", &[value]);
        if let Some(node) = self.graph.node.last_mut().filter(|node| node.output == [identity]) {
            node.output = vec![name.into()];
        }
        self.graph.output.push(value_info(name, columns, doc));
    }

    /// The graph.
    pub fn finish(self, name: &str) -> Graph {
        Graph { name: name.into(), ..self.graph }
    }
}

fn value_info(name: &str, columns: usize, doc: &str) -> ValueInfo {
    let dim =
        [Size::Any("batch".into()), Size::Value(columns as i64)].map(|size| Dimension { size: Some(size) }).into();
    let tensor_type = TensorType { elem_type: FLOAT, shape: Some(Shape { dim }) };
    ValueInfo { name: name.into(), r#type: Some(Type { tensor_type: Some(tensor_type) }), doc_string: doc.into() }
}
