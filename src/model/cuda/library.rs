//! Products of passes of many rows, by cuBLASLt.

use std::collections::HashMap;
use std::ffi::c_void;

use cudarc::cublaslt::{result, sys};

use super::device::{Address, Multiply, MultiplyShape, Plus};
use crate::model::error::ModelError;

/// Bytes that the library may work in: what NVIDIA recommends for Hopper.
pub(super) const WORKSPACE: usize = 32 << 20;

/// `CUBLAS_OP_T`, which the bindings lack.
const TRANSPOSED: i32 = 1;

/// The library, with how to do the products that were prepared.
pub(super) struct Library {
    /// Before the handle, which made them.
    plans: HashMap<MultiplyShape, Plan>,
    handle: Handle,
    workspace: Address,
}

impl Library {
    /// Opens the library on the current context.
    ///
    /// # Errors
    /// [`ModelError::Cuda`] where it is not installed, or does not work.
    pub(super) fn open() -> Result<Self, ModelError> {
        // SAFETY: looks for the library by its names, and loads it.
        if !unsafe { sys::is_culib_present() } {
            return Err(ModelError::Cuda("cuBLASLt (libcublasLt) is not installed".into()));
        }
        let handle = Handle(result::create_handle().map_err(failed)?);
        Ok(Self { plans: HashMap::new(), handle, workspace: Address::NULL })
    }

    /// Gives it [`WORKSPACE`] bytes to work in, which it needs before the first product.
    pub(super) fn work_in(&mut self, workspace: Address) {
        self.workspace = workspace;
    }

    /// Chooses how products of a shape are done.
    ///
    /// # Errors
    /// [`ModelError::Cuda`] where the library has no way.
    pub(super) fn prepare(&mut self, shape: MultiplyShape) -> Result<(), ModelError> {
        if !self.plans.contains_key(&shape) {
            self.plans.insert(shape, Plan::new(&self.handle, shape)?);
        }
        Ok(())
    }

    /// Starts a product on a stream of the current context.
    ///
    /// # Errors
    /// [`ModelError::Cuda`], also for a shape that was not prepared.
    pub(super) fn multiply(&self, product: &Multiply, stream: sys::cudaStream_t) -> Result<(), ModelError> {
        let Some(plan) = self.plans.get(&product.shape) else {
            return Err(ModelError::Cuda(format!("{:?} was not prepared", product.shape)));
        };
        if let Plus::Bias = product.shape.plus {
            plan.operation.set_bias(product.bias)?;
        }
        let (alpha, beta) = (1f32, if product.shape.plus == Plus::Output { 1f32 } else { 0f32 });
        let pointer = |address: Address| address.0 as *mut c_void;
        let factor = |factor: &f32| std::ptr::from_ref(factor).cast::<c_void>();
        // SAFETY: handle and descriptions exist; the factors are read before the call returns. Addresses are of memory
        // that the device keeps, as large as the shapes say, and of the workspace.
        unsafe {
            result::matmul(
                self.handle.0,
                plan.operation.0,
                factor(&alpha),
                factor(&beta),
                pointer(product.weights),
                plan.weights.0,
                pointer(product.input),
                plan.input.0,
                pointer(product.output),
                plan.output.0,
                pointer(product.output),
                plan.output.0,
                &raw const plan.algorithm,
                pointer(self.workspace),
                WORKSPACE,
                stream,
            )
        }
        .map_err(failed)
    }
}

/// A product as the library wants it told. It takes matrices in columns, to which ours, in rows, are transposed: it has
/// to turn the weights back, and takes the rest as it is, for outputᵀ = weights · inputᵀ.
struct Plan {
    operation: Operation,
    /// [depth, width], transposed.
    weights: Layout,
    /// [depth, rows].
    input: Layout,
    /// [width, rows].
    output: Layout,
    algorithm: sys::cublasLtMatmulAlgo_t,
}

impl Plan {
    fn new(handle: &Handle, shape: MultiplyShape) -> Result<Self, ModelError> {
        let MultiplyShape { rows, width, depth, plus } = shape;
        let operation = Operation::new()?;
        if let Plus::Bias = plus {
            // Any place that is as well aligned as the one that comes with the product.
            operation.set_bias(Address(256))?;
        }
        let half = |rows, columns| Layout::new(sys::cudaDataType::CUDA_R_16BF, rows, columns);
        let (weights, input) = (half(depth, width)?, half(depth, rows)?);
        let output = Layout::new(sys::cudaDataType::CUDA_R_32F, width, rows)?;
        let preference = Preference::new()?;
        // SAFETY: all descriptions exist.
        let found = unsafe {
            result::get_matmul_algo_heuristic(
                handle.0,
                operation.0,
                weights.0,
                input.0,
                output.0,
                output.0,
                preference.0,
            )
        };
        let algorithm = found.map_err(failed)?.algo;
        Ok(Self { operation, weights, input, output, algorithm })
    }
}

struct Handle(sys::cublasLtHandle_t);
struct Operation(sys::cublasLtMatmulDesc_t);
struct Layout(sys::cublasLtMatrixLayout_t);
struct Preference(sys::cublasLtMatmulPreference_t);

// SAFETY: handle and descriptions belong to one value alone, and may be used from any thread.
unsafe impl Send for Library {}

impl Operation {
    /// Sums in float32 of what is transposed on the left.
    fn new() -> Result<Self, ModelError> {
        let (sums, scale) = (sys::cublasComputeType_t::CUBLAS_COMPUTE_32F, sys::cudaDataType::CUDA_R_32F);
        let operation = Self(result::create_matmul_desc(sums, scale).map_err(failed)?);
        operation.set(sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_TRANSA, TRANSPOSED)?;
        Ok(operation)
    }

    /// Adds the vector at an address to every row.
    fn set_bias(&self, bias: Address) -> Result<(), ModelError> {
        use sys::cublasLtMatmulDescAttributes_t as Attribute;
        self.set(Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE, sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS)?;
        self.set(Attribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias)
    }

    fn set<T>(&self, attribute: sys::cublasLtMatmulDescAttributes_t, value: T) -> Result<(), ModelError> {
        let place = std::ptr::from_ref(&value).cast();
        // SAFETY: the description exists; the value has the type that the attribute wants, and is copied.
        unsafe { result::set_matmul_desc_attribute(self.0, attribute, place, size_of::<T>()) }.map_err(failed)
    }
}

impl Layout {
    /// A matrix in columns, without gaps.
    fn new(of: sys::cudaDataType, rows: usize, columns: usize) -> Result<Self, ModelError> {
        result::create_matrix_layout(of, rows as u64, columns as u64, rows as i64).map(Self).map_err(failed)
    }
}

impl Preference {
    fn new() -> Result<Self, ModelError> {
        let preference = Self(result::create_matmul_pref().map_err(failed)?);
        let attribute = sys::cublasLtMatmulPreferenceAttributes_t::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES;
        let place = std::ptr::from_ref(&WORKSPACE).cast();
        // SAFETY: the description exists; the value is 64 bits, as the attribute wants, and is copied.
        let set = unsafe { result::set_matmul_pref_attribute(preference.0, attribute, place, size_of_val(&WORKSPACE)) };
        set.map_err(failed)?;
        Ok(preference)
    }
}

/// What was created once is destroyed once. There is nothing to do about an error.
macro_rules! destroyed_by {
    ($($what:ident $destroy:ident),+) => {$(
        impl Drop for $what {
            fn drop(&mut self) {
                // SAFETY: created once, destroyed once.
                let _ = unsafe { result::$destroy(self.0) };
            }
        }
    )+};
}

destroyed_by!(
    Handle destroy_handle, Operation destroy_matmul_desc, Layout destroy_matrix_layout, Preference destroy_matmul_pref
);

fn failed(error: result::CublasError) -> ModelError {
    ModelError::Cuda(format!("cuBLASLt: {:?}", error.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::cuda::compiler::tests::nvrtc_folder;
    use crate::model::cuda::libraries::preload;

    /// NVIDIA's own library, which describes products without a GPU, but does none. In a process of its own, where no
    /// other has its name.
    #[test]
    fn the_library_takes_our_descriptions() {
        let name = "model::cuda::library::tests::descriptions_are_taken";
        crate::model::cuda::tests::passes_alone(name);
    }

    #[test]
    #[ignore = "run by the test above, in a process of its own"]
    fn descriptions_are_taken() {
        preload(&nvrtc_folder()).unwrap();
        // SAFETY: looks for the library, which was just loaded.
        assert!(unsafe { sys::is_culib_present() });
        let operation = Operation::new().unwrap();
        operation.set_bias(Address(1 << 20)).unwrap();
        let wrong = operation.set(sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_TRANSA, 0u8);
        assert!(matches!(wrong, Err(ModelError::Cuda(_))), "a value of another size");
        Preference::new().unwrap();
        Layout::new(sys::cudaDataType::CUDA_R_16BF, 1024, 512).unwrap();
    }
}
